-- Everything that one bucket has gathered, in one call: all keys carry the same hash tag, so one shard has them all.
--
-- KEYS  hints to store, hints to look up, quotas to charge, then the bucket's stream.
-- ARGV  how many of each: stores, look-ups, charges, messages, acknowledgements;
--       milliseconds that a hint lives, entries that the stream keeps, milliseconds that it lives, its consumer group;
--       a value for each store; microseconds to charge and microseconds ahead at most for each charge; the messages;
--       the ids to acknowledge.
-- Answers with the hints, and with how many microseconds each quota is ahead of now.

local key, argument = 0, 0

local function next_key()
    key = key + 1
    return KEYS[key]
end

local function next_argument()
    argument = argument + 1
    return ARGV[argument]
end

local stores, look_ups, charges = tonumber(next_argument()), tonumber(next_argument()), tonumber(next_argument())
local messages, acknowledgements = tonumber(next_argument()), tonumber(next_argument())
local hint_milliseconds = next_argument()
local stream_entries, stream_milliseconds, group = next_argument(), next_argument(), next_argument()

for _ = 1, stores do
    redis.call('SET', next_key(), next_argument(), 'PX', hint_milliseconds)
end

local hints = {}
for i = 1, look_ups do
    hints[i] = redis.call('GET', next_key())
end

-- GCRA: a quota is the time at which it would be unused again. The clock is this server's, the same for every process.
local ahead = {}
if charges > 0 then
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
    for i = 1, charges do
        local quota, charge, ahead_max = next_key(), tonumber(next_argument()), tonumber(next_argument())
        local arrival = math.max(tonumber(redis.call('GET', quota) or 0), now)
        arrival = math.min(arrival + charge, now + ahead_max)
        if arrival > now then
            redis.call('SET', quota, string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000))
        end
        ahead[i] = arrival - now
    end
end

local stream = next_key()
for _ = 1, messages do
    redis.call('XADD', stream, 'MAXLEN', '~', stream_entries, '*', 'm', next_argument())
end
if messages > 0 then
    redis.call('PEXPIRE', stream, stream_milliseconds)
end
for _ = 1, acknowledgements do
    local id = next_argument()
    redis.call('XACK', stream, group, id)
    redis.call('XDEL', stream, id)
end

return {hints, ahead}
