-- Lots with an end, holds, captures, refunds, a hash chain; redemptions decided in batches. Runs as redemption_owner.
--
-- Safe while serving. Every new column is nullable or has a constant default, so no table is rewritten; new checks are
-- NOT VALID and validated later (0004), new indexes are built without blocking (0003). Programs that know 0001 alone go on:
-- what they call keeps its name and shape. And a call that began under 0001 and waited for this migration ends in the body
-- of 0001: it moves a balance and knows no lots. So an account says as of which version its lots are exact, and whoever
-- finds another version there counts them anew (ledger.settle_account).

-- In the order in which 0001's functions lock them: whoever waits for one of them holds none that we want.
LOCK TABLE ledger.redemptions, ledger.accounts, ledger.accruals, ledger.entries IN ACCESS EXCLUSIVE MODE;

ALTER TABLE ledger.accounts
ADD COLUMN held bigint NOT NULL DEFAULT 0, -- set aside by open holds; the guest may spend balance - held
ADD COLUMN lots_version bigint NOT NULL DEFAULT -1, -- the version as of which the lots are exact; -1: never counted
ADD COLUMN next_expiry timestamptz, -- no lot of the account ends before
ADD CONSTRAINT accounts_held_check CHECK (held BETWEEN 0 AND balance) NOT VALID;

-- One row a decision about a redemption, kept for the life of the ledger: first redeem or reserve, then capture, void,
-- expire or refund. All share one space of idempotency keys, unique in the transaction that moves the points.
ALTER TABLE ledger.redemptions
ADD COLUMN kind text NOT NULL DEFAULT 'redeem',
ADD COLUMN origin_id uuid, -- of a capture, void, expire or refund: the redemption that it is about
ADD COLUMN available bigint, -- of the account right after the decision; NULL: there was no hold, it is the balance
ADD COLUMN hold_expires_at timestamptz, -- of a reserve
ADD COLUMN accepted_at timestamptz, -- of a deferred one: when the queue took it
ADD COLUMN transaction_number bigint, -- orders the hash chain
DROP CONSTRAINT redemptions_rejection_check,
DROP CONSTRAINT redemptions_check,
DROP CONSTRAINT redemptions_client_id_check,
DROP CONSTRAINT redemptions_idempotency_key_check,
DROP CONSTRAINT redemptions_account_id_check,
-- The same texts as before, without a counted repeat: to walk through one took a fifth of the time of a redemption.
ADD CONSTRAINT redemptions_texts_check CHECK (
    length(client_id) BETWEEN 1 AND 64 AND length(idempotency_key) BETWEEN 16 AND 128
    AND length(account_id) BETWEEN 1 AND 64 AND idempotency_key || account_id !~ '[^A-Za-z0-9_-]'
    -- What the upkeep does has a name that no client can have, so no client can take its keys.
    AND CASE WHEN kind = 'expire' THEN client_id = 'system:upkeep' ELSE client_id !~ '[^A-Za-z0-9_-]' END
) NOT VALID,
ADD CONSTRAINT redemptions_rejection_check CHECK (rejection IN (
    'insufficient-points', 'unknown-account', 'deadline-passed', 'hold-closed', 'exceeds-hold', 'exceeds-redeemed',
    'balance-too-large'
)) NOT VALID,
ADD CONSTRAINT redemptions_insufficient_check CHECK (
    rejection IS DISTINCT FROM 'insufficient-points' OR coalesce(available, balance) < points
) NOT VALID,
ADD CONSTRAINT redemptions_kind_check CHECK (
    kind IN ('redeem', 'reserve', 'capture', 'void', 'expire', 'refund')
) NOT VALID,
ADD CONSTRAINT redemptions_origin_check CHECK (
    (origin_id IS NULL) = (kind IN ('redeem', 'reserve'))
) NOT VALID,
ADD CONSTRAINT redemptions_hold_check CHECK (
    (hold_expires_at IS NOT NULL) = (kind = 'reserve' AND rejection IS NULL)
    AND coalesce(hold_expires_at >= created_at, true)
) NOT VALID;

ALTER TABLE ledger.entries
ADD COLUMN transaction_number bigint,
DROP CONSTRAINT entries_account_id_check,
ADD CONSTRAINT entries_account_id_check CHECK (
    account_id !~ ':' OR account_id IN ('system:burn', 'system:issuance', 'system:expiry')
) NOT VALID;

-- The number of the transaction that wrote the row: when every transaction below a number has ended, the rows below it
-- are final. A default set apart from the column leaves the rows of 0001 alone, without a rewrite.
ALTER TABLE ledger.redemptions ALTER COLUMN transaction_number SET DEFAULT pg_current_xact_id()::text::bigint;
ALTER TABLE ledger.entries ALTER COLUMN transaction_number SET DEFAULT pg_current_xact_id()::text::bigint;

ALTER TABLE ledger.accruals ADD COLUMN expires_at timestamptz; -- NULL: these points never end

-- Points with one end. `points` is what was granted, `remaining` caches the sum of the lot's postings.
CREATE TABLE ledger.lots (
    lot_id uuid PRIMARY KEY,
    account_id text NOT NULL REFERENCES ledger.accounts,
    points bigint NOT NULL CHECK (points > 0),
    remaining bigint NOT NULL CHECK (remaining BETWEEN 0 AND points),
    open boolean NOT NULL DEFAULT true CHECK (open = (remaining > 0)), -- a column, so that to spend a part touches no index
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);

CREATE INDEX lots_open ON ledger.lots (account_id, expires_at, lot_id) WHERE open;

-- From which lots a transaction took points (below 0), or to which it gave them. No foreign key to the lot: it would cost
-- a look-up a row, and the verification finds what does not fit.
CREATE TABLE ledger.lot_postings (
    transaction_id uuid NOT NULL, -- an accrual, a decision, an expiration, or a count of lots
    lot_id uuid NOT NULL,
    amount bigint NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (transaction_id, lot_id)
);

-- The open holds: a working set. That a hold was made, and how it ended, stands in ledger.redemptions.
CREATE TABLE ledger.holds (
    redemption_id uuid PRIMARY KEY,
    account_id text NOT NULL,
    points bigint NOT NULL CHECK (points > 0),
    expires_at timestamptz NOT NULL
);

CREATE INDEX holds_expires_at ON ledger.holds (expires_at);

CREATE TABLE ledger.expirations (
    expiration_id uuid PRIMARY KEY,
    account_id text NOT NULL,
    points bigint NOT NULL CHECK (points > 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The hash chain: each seal covers the rows of a range of transactions, and the seal before it.
CREATE TABLE ledger.seals (
    number bigint PRIMARY KEY CHECK (number > 0),
    through bigint NOT NULL, -- every row whose transaction number is at most this is covered by this seal or one before
    rows bigint NOT NULL CHECK (rows > 0),
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['lot_postings', 'expirations', 'seals'] LOOP
        EXECUTE format(
            'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.%I
             FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()', name
        );
        EXECUTE format(
            'CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ledger.%I
             FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', name
        );
    END LOOP;
END
$$;

-- --- lots: first to end, first spent --------------------------------------------------------------------------------
-- For the functions below alone: whoever calls these holds the locks of the accounts.

-- Take points from the accounts' open lots, for several transactions in their order.
--
-- On a line of each account's points, every transaction and every lot is a stretch; where two overlap, the one takes
-- from the other.
CREATE FUNCTION ledger.spend_lots(p_transaction_ids uuid[], p_account_ids text[], p_points bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted constant numeric := (SELECT sum(w.points) FROM unnest(p_points) AS w (points));
    spent numeric;
BEGIN
    WITH wanted AS (
        SELECT w.transaction_id, w.account_id, w.points,
            sum(w.points) OVER (PARTITION BY w.account_id ORDER BY w.place) AS until
        FROM unnest(p_transaction_ids, p_account_ids, p_points)
            WITH ORDINALITY AS w (transaction_id, account_id, points, place)
    ),
    stock AS (
        SELECT l.lot_id, l.account_id, l.remaining,
            sum(l.remaining) OVER (PARTITION BY l.account_id ORDER BY l.expires_at, l.lot_id) AS until
        FROM ledger.lots AS l
        WHERE l.open AND l.account_id = ANY (p_account_ids)
    ),
    burns AS (
        SELECT w.transaction_id, s.lot_id,
            (least(w.until, s.until) - greatest(w.until - w.points, s.until - s.remaining))::bigint AS points
        FROM wanted AS w
        JOIN stock AS s
            ON s.account_id = w.account_id AND s.until > w.until - w.points AND w.until > s.until - s.remaining
    ),
    posted AS (
        INSERT INTO ledger.lot_postings (transaction_id, lot_id, amount)
        SELECT b.transaction_id, b.lot_id, -b.points FROM burns AS b
        RETURNING amount
    ),
    taken AS (
        UPDATE ledger.lots AS l SET remaining = l.remaining - t.points, open = l.remaining > t.points
        FROM (SELECT b.lot_id, sum(b.points)::bigint AS points FROM burns AS b GROUP BY b.lot_id) AS t
        WHERE l.lot_id = t.lot_id
    )
    SELECT -sum(p.amount) INTO spent FROM posted AS p;

    IF spent IS DISTINCT FROM wanted THEN
        RAISE EXCEPTION 'the lots hold % of % points', spent, wanted USING ERRCODE = 'data_exception';
    END IF;
END
$$;

-- Give points back to the lots that a redemption took them from, the last to end first: the guest keeps the longest.
CREATE FUNCTION ledger.return_to_lots(p_transaction_id uuid, p_origin_id uuid, p_account_id text, p_points bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    returned numeric;
    first_end timestamptz;
BEGIN
    IF NOT EXISTS (SELECT FROM ledger.lot_postings AS p WHERE p.transaction_id = p_origin_id) THEN
        -- Spent under 0001, from no lot: these points never end.
        INSERT INTO ledger.lots (lot_id, account_id, points, remaining)
        VALUES (p_transaction_id, p_account_id, p_points, p_points);
        INSERT INTO ledger.lot_postings (transaction_id, lot_id, amount)
        VALUES (p_transaction_id, p_transaction_id, p_points);
        RETURN;
    END IF;

    WITH family AS (
        SELECT p_origin_id AS transaction_id
        UNION ALL
        SELECT r.redemption_id FROM ledger.redemptions AS r WHERE r.origin_id = p_origin_id
    ),
    taken AS (
        SELECT p.lot_id, -sum(p.amount) AS points
        FROM ledger.lot_postings AS p JOIN family USING (transaction_id)
        GROUP BY p.lot_id
        HAVING sum(p.amount) < 0
    ),
    stretches AS (
        SELECT l.lot_id, l.expires_at, t.points,
            sum(t.points) OVER (ORDER BY l.expires_at DESC, l.lot_id DESC) AS until -- DESC: NULL, no end, comes first
        FROM taken AS t JOIN ledger.lots AS l USING (lot_id)
    ),
    shares AS (
        SELECT s.lot_id, s.expires_at, (least(s.until, p_points) - (s.until - s.points))::bigint AS points
        FROM stretches AS s WHERE s.until - s.points < p_points
    ),
    posted AS (
        INSERT INTO ledger.lot_postings (transaction_id, lot_id, amount)
        SELECT p_transaction_id, s.lot_id, s.points FROM shares AS s
    ),
    given AS (
        UPDATE ledger.lots AS l SET remaining = l.remaining + s.points, open = true
        FROM shares AS s WHERE l.lot_id = s.lot_id
    )
    SELECT sum(s.points), min(s.expires_at) INTO returned, first_end FROM shares AS s;

    IF returned IS DISTINCT FROM p_points THEN
        RAISE EXCEPTION 'only % of % points came from lots', returned, p_points USING ERRCODE = 'data_exception';
    END IF;
    UPDATE ledger.accounts AS a SET next_expiry = least(a.next_expiry, first_end)
    WHERE a.account_id = p_account_id AND first_end < coalesce(a.next_expiry, 'infinity');
END
$$;

-- Bring an account's lots up to date: count them when something moved the balance without them, and let those end whose
-- time has come. Returns the account as it is then.
CREATE FUNCTION ledger.settle_account(p_account_id text) RETURNS ledger.accounts
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    account ledger.accounts;
    moment constant timestamptz := clock_timestamp();
    counted bigint;
    ended bigint;
    id uuid;
BEGIN
    SELECT * INTO STRICT account FROM ledger.accounts AS a WHERE a.account_id = p_account_id;

    IF account.lots_version <> account.version THEN
        SELECT account.balance - account.held - coalesce(sum(l.remaining), 0) INTO counted
        FROM ledger.lots AS l WHERE l.account_id = p_account_id AND l.open;
        IF counted > 0 THEN
            id := ledger.new_id();
            INSERT INTO ledger.lots (lot_id, account_id, points, remaining) VALUES (id, p_account_id, counted, counted);
            INSERT INTO ledger.lot_postings (transaction_id, lot_id, amount) VALUES (id, id, counted);
        ELSIF counted < 0 THEN
            PERFORM ledger.spend_lots(ARRAY[ledger.new_id()], ARRAY[p_account_id], ARRAY[-counted]);
        END IF;
    END IF;

    SELECT sum(l.remaining) INTO ended
    FROM ledger.lots AS l WHERE l.account_id = p_account_id AND l.open AND l.expires_at <= moment;
    IF ended > 0 THEN
        id := ledger.new_id();
        INSERT INTO ledger.expirations (expiration_id, account_id, points) VALUES (id, p_account_id, ended);
        INSERT INTO ledger.entries (transaction_id, account_id, amount, account_version, balance_after)
        VALUES
            (id, p_account_id, -ended, account.version + 1, account.balance - ended),
            (id, 'system:expiry', ended, NULL, NULL);
        PERFORM ledger.spend_lots(ARRAY[id], ARRAY[p_account_id], ARRAY[ended]); -- these are the first to be spent
    END IF;

    UPDATE ledger.accounts AS a
    SET
        balance = a.balance - coalesce(ended, 0),
        version = a.version + (ended > 0 IS TRUE)::integer,
        lots_version = a.version + (ended > 0 IS TRUE)::integer,
        next_expiry = (SELECT min(l.expires_at) FROM ledger.lots AS l WHERE l.account_id = p_account_id AND l.open)
    WHERE a.account_id = p_account_id
    RETURNING * INTO account;
    RETURN account;
END
$$;

-- --- the only writers -----------------------------------------------------------------------------------------------

-- What the ledger decided for a client's key. Every function that decides or reads returns rows of this shape.
--
-- result       'decided' now, 'replayed' from an earlier call, 'key-reused': the key belongs to another request,
--              'busy': somebody else holds the account's lock, nothing was decided, 'not-found': there is no such redemption.
--              Of the last three every other column but `place` is NULL.
-- rejection    NULL when it was done
CREATE TYPE ledger.decision AS (
    place integer, -- in the batch, from 1
    result text,
    redemption_id uuid,
    origin_id uuid,
    kind text,
    account_id text,
    points bigint,
    rejection text,
    balance bigint,
    available bigint,
    hold_expires_at timestamptz,
    created_at timestamptz
);

CREATE FUNCTION ledger.as_decision(p_place integer, p_result text, made ledger.redemptions) RETURNS ledger.decision
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_place, p_result, made.redemption_id, made.origin_id, made.kind, made.account_id, made.points, made.rejection,
        made.balance, coalesce(made.available, made.balance), made.hold_expires_at, made.created_at
$$;

-- Spend or reserve points, exactly once for each client's key; many in one transaction, in the order of the arrays.
--
-- p_hold_seconds   NULL: the points leave at once; else they are held for this long
-- p_accepted_at,   of deferred ones: when the queue took them, and the time after which nothing may be deducted any more;
-- p_deadlines      else NULL
-- p_wait           wait for an account that somebody else has locked; without it that comes back as 'busy'. A batch of
--                  several never waits: one account in use elsewhere does not hold up the others.
--
-- Plans are made once for a connection (for arrays they would be made anew in each call, which costs more than the call),
-- and by the indexes, however small the tables are at that time.
--
-- Raises serialization_failure when somebody else takes one of several keys at this very moment; alone each goes through.
CREATE FUNCTION ledger.redeem_batch(
    p_client_ids text[], p_keys text[], p_fingerprints bytea[], p_account_ids text[], p_points bigint[],
    p_hold_seconds integer[], p_accepted_at timestamptz[], p_deadlines timestamptz[], p_wait boolean
)
RETURNS SETOF ledger.decision
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz; -- of the decisions
    fresh integer[]; -- places of keys that were never seen; of twins in one batch the first
    -- Those whose account we have, account by account, and within one in the order of the batch:
    places integer[];
    accounts ledger.accounts[];
    account ledger.accounts;
    points bigint;
    reason text;
    -- What is decided for each of `places`:
    ids uuid[] := '{}';
    reasons text[] := '{}';
    balances bigint[] := '{}';
    availables bigint[] := '{}';
    versions bigint[] := '{}'; -- of its entry; NULL: it makes none
    hold_ends timestamptz[] := '{}';
    changed ledger.accounts[] := '{}';
    made integer;
BEGIN
    IF p_wait AND cardinality(p_keys) > 1 THEN
        RAISE EXCEPTION 'only a batch of one waits for a lock' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Without a lock, so that a storm of retries does not queue on an account.
    SELECT array_agg(i.place) INTO fresh
    FROM (
        SELECT DISTINCT ON (u.client_id, u.idempotency_key) u.place::integer AS place, u.client_id, u.idempotency_key
        FROM unnest(p_client_ids, p_keys) WITH ORDINALITY AS u (client_id, idempotency_key, place)
        ORDER BY u.client_id, u.idempotency_key, u.place
    ) AS i
    WHERE NOT EXISTS (
        SELECT FROM ledger.redemptions AS r
        WHERE r.client_id = i.client_id AND r.idempotency_key = i.idempotency_key
    );

    IF fresh IS NOT NULL THEN
        IF p_wait THEN
            PERFORM FROM ledger.accounts AS a WHERE a.account_id = p_account_ids[1] FOR UPDATE;
        END IF;
        SELECT
            array_agg(l.place ORDER BY l.account_id, l.place),
            array_agg(l.account ORDER BY l.account_id, l.place)
        INTO places, accounts
        FROM (
            SELECT f.place, a.account_id, a AS account
            FROM unnest(fresh) AS f (place) JOIN ledger.accounts AS a ON a.account_id = p_account_ids[f.place]
            FOR UPDATE OF a SKIP LOCKED
        ) AS l;
        moment := clock_timestamp(); -- after the wait for a lock: it may have taken the deadline with it

        FOR i IN 1 .. coalesce(cardinality(places), 0) LOOP
            IF account.account_id IS DISTINCT FROM (accounts[i]).account_id THEN
                IF i > 1 THEN
                    changed := changed || account;
                END IF;
                account := accounts[i];
                IF account.lots_version <> account.version OR account.next_expiry <= moment THEN
                    account := ledger.settle_account(account.account_id);
                END IF;
            END IF;
            points := p_points[places[i]];
            reason := CASE
                WHEN p_deadlines[places[i]] < moment THEN 'deadline-passed'
                WHEN account.balance - account.held < points THEN 'insufficient-points'
            END;
            IF reason IS NULL AND p_hold_seconds[places[i]] IS NULL THEN
                account.balance := account.balance - points;
                account.version := account.version + 1;
                versions := versions || account.version;
            ELSE
                versions := versions || NULL::bigint;
            END IF;
            IF reason IS NULL AND p_hold_seconds[places[i]] IS NOT NULL THEN
                account.held := account.held + points;
                hold_ends := hold_ends || moment + make_interval(secs => p_hold_seconds[places[i]]);
            ELSE
                hold_ends := hold_ends || NULL::timestamptz;
            END IF;
            ids := ids || ledger.new_id();
            reasons := reasons || reason;
            balances := balances || account.balance;
            availables := availables || account.balance - account.held;
        END LOOP;
        IF account.account_id IS NOT NULL THEN
            changed := changed || account;
        END IF;

        IF coalesce(cardinality(places), 0) < cardinality(fresh) THEN
            FOR i IN 1 .. cardinality(fresh) LOOP
                IF NOT EXISTS (SELECT FROM ledger.accounts AS a WHERE a.account_id = p_account_ids[fresh[i]]) THEN
                    places := places || fresh[i];
                    ids := ids || ledger.new_id();
                    reasons := reasons || 'unknown-account'::text;
                    balances := balances || NULL::bigint;
                    availables := availables || NULL::bigint;
                    versions := versions || NULL::bigint;
                    hold_ends := hold_ends || NULL::timestamptz;
                END IF;
            END LOOP;
        END IF;

        -- In the order of the keys: two who insert the same keys never wait for each other in a circle.
        WITH inserted AS (
            INSERT INTO ledger.redemptions (
                redemption_id, client_id, idempotency_key, fingerprint, account_id, points, rejection, balance,
                created_at, kind, available, hold_expires_at, accepted_at
            )
            SELECT
                d.redemption_id, p_client_ids[d.place], p_keys[d.place], p_fingerprints[d.place],
                p_account_ids[d.place], p_points[d.place], d.rejection, d.balance, moment,
                CASE WHEN p_hold_seconds[d.place] IS NULL THEN 'redeem' ELSE 'reserve' END,
                d.available, d.hold_expires_at, p_accepted_at[d.place]
            FROM unnest(places, ids, reasons, balances, availables, hold_ends)
                AS d (place, redemption_id, rejection, balance, available, hold_expires_at)
            ORDER BY 2, 3
            ON CONFLICT (client_id, idempotency_key) DO NOTHING
            RETURNING 1
        )
        SELECT count(*) INTO made FROM inserted;

        IF made < coalesce(cardinality(places), 0) THEN
            IF cardinality(p_keys) > 1 THEN
                RAISE EXCEPTION 'a key was taken meanwhile' USING ERRCODE = 'serialization_failure';
            END IF;
            places := '{}'; -- a twin of this call was faster, and its row is visible now
        ELSIF cardinality(changed) > 0 THEN
            UPDATE ledger.accounts AS a
            SET balance = c.balance, held = c.held, version = c.version, lots_version = c.version
            FROM unnest(changed) AS c
            WHERE a.account_id = c.account_id AND (a.version, a.held) <> (c.version, c.held);

            INSERT INTO ledger.entries (transaction_id, account_id, amount, account_version, balance_after)
            SELECT d.redemption_id, p.account_id, p.amount, p.account_version, p.balance_after
            FROM unnest(places, ids, versions, balances) AS d (place, redemption_id, version, balance)
            CROSS JOIN LATERAL (
                VALUES
                    (p_account_ids[d.place], -p_points[d.place], d.version, d.balance),
                    ('system:burn', p_points[d.place], NULL, NULL)
            ) AS p (account_id, amount, account_version, balance_after)
            WHERE d.version IS NOT NULL;

            IF cardinality(array_remove(hold_ends, NULL)) > 0 THEN
                INSERT INTO ledger.holds (redemption_id, account_id, points, expires_at)
                SELECT d.redemption_id, p_account_ids[d.place], p_points[d.place], d.expires_at
                FROM unnest(places, ids, hold_ends) AS d (place, redemption_id, expires_at)
                WHERE d.expires_at IS NOT NULL;
            END IF;

            PERFORM ledger.spend_lots(
                array_agg(d.redemption_id ORDER BY d.nth),
                array_agg(p_account_ids[d.place] ORDER BY d.nth),
                array_agg(p_points[d.place] ORDER BY d.nth)
            )
            FROM unnest(places, ids, reasons) WITH ORDINALITY AS d (place, redemption_id, rejection, nth)
            WHERE d.rejection IS NULL
            HAVING count(*) > 0;
        END IF;
    END IF;

    RETURN QUERY
    SELECT
        d.place, 'decided', d.redemption_id, NULL::uuid,
        CASE WHEN p_hold_seconds[d.place] IS NULL THEN 'redeem' ELSE 'reserve' END,
        p_account_ids[d.place], p_points[d.place], d.rejection, d.balance, d.available, d.hold_expires_at, moment
    FROM unnest(places, ids, reasons, balances, availables, hold_ends)
        AS d (place, redemption_id, rejection, balance, available, hold_expires_at)
    WHERE d.place IS NOT NULL;

    IF coalesce(cardinality(places), 0) < cardinality(p_keys) THEN
        RETURN QUERY
        SELECT
            u.place::integer,
            CASE
                WHEN r.redemption_id IS NULL THEN 'busy' WHEN m.redemption_id IS NULL THEN 'key-reused' ELSE 'replayed'
            END,
            m.redemption_id, m.origin_id, m.kind, m.account_id, m.points, m.rejection, m.balance,
            coalesce(m.available, m.balance), m.hold_expires_at, m.created_at
        FROM unnest(p_client_ids, p_keys, p_fingerprints)
            WITH ORDINALITY AS u (client_id, idempotency_key, fingerprint, place)
        LEFT JOIN ledger.redemptions AS r USING (client_id, idempotency_key)
        LEFT JOIN LATERAL (SELECT r.* WHERE r.fingerprint = u.fingerprint) AS m ON true
        WHERE u.place <> ALL (coalesce(places, '{}'));

        PERFORM ledger.promise();
    END IF;
END
$$;

-- An answer is a promise. What a replay or a read tells may so far be on this server only, when the call that wrote it was
-- cancelled while it waited for a synchronous standby. A commit that writes nothing does not wait; this record makes it.
CREATE FUNCTION ledger.promise() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_logical_emit_message(true, 'redemption-promise', '')
$$;

-- End a hold, whole or in part: capture points of it, and give the rest back to its lots. The caller holds the account's
-- lock. Returns the account as it is then.
CREATE FUNCTION ledger.end_hold(p_transaction_id uuid, p_hold ledger.holds, p_captured bigint) RETURNS ledger.accounts
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    account ledger.accounts;
BEGIN
    DELETE FROM ledger.holds AS h WHERE h.redemption_id = p_hold.redemption_id;
    UPDATE ledger.accounts AS a
    SET
        held = a.held - p_hold.points,
        balance = a.balance - p_captured,
        version = a.version + (p_captured > 0)::integer,
        lots_version = a.version + (p_captured > 0)::integer
    WHERE a.account_id = p_hold.account_id
    RETURNING * INTO STRICT account;
    IF p_captured > 0 THEN
        INSERT INTO ledger.entries (transaction_id, account_id, amount, account_version, balance_after)
        VALUES
            (p_transaction_id, account.account_id, -p_captured, account.version, account.balance),
            (p_transaction_id, 'system:burn', p_captured, NULL, NULL);
    END IF;
    IF p_captured < p_hold.points THEN
        PERFORM ledger.return_to_lots(
            p_transaction_id, p_hold.redemption_id, p_hold.account_id, p_hold.points - p_captured
        );
    END IF;
    RETURN account;
END
$$;

-- Capture or void a hold, or refund what was redeemed, exactly once for the client's key.
--
-- p_kind     'capture', 'void' or 'refund'
-- p_points   of a capture or a refund; NULL: all that there is. A void is always of the whole hold.
--
-- Another client's redemption is 'not-found'. The answer's `points` are those that moved, or those that were asked for
-- when it was rejected.
CREATE FUNCTION ledger.resolve(
    p_client_id text, p_key text, p_fingerprint bytea, p_redemption_id uuid, p_kind text, p_points bigint
)
RETURNS SETOF ledger.decision
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz;
    origin ledger.redemptions;
    made ledger.redemptions;
    account ledger.accounts;
    hold ledger.holds;
    refundable bigint;
    id constant uuid := ledger.new_id();
    moved bigint;
    reason text;
BEGIN
    IF p_kind NOT IN ('capture', 'void', 'refund') THEN
        RAISE EXCEPTION 'unknown kind %', p_kind USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO made FROM ledger.redemptions AS r
    WHERE r.client_id = p_client_id AND r.idempotency_key = p_key;
    IF NOT FOUND THEN
        SELECT * INTO origin FROM ledger.redemptions AS r
        WHERE r.redemption_id = p_redemption_id AND r.client_id = p_client_id AND r.origin_id IS NULL;
        IF NOT FOUND THEN
            RETURN NEXT ledger.as_decision(1, 'not-found', NULL);
            RETURN;
        END IF;
        SELECT * INTO account FROM ledger.accounts AS a WHERE a.account_id = origin.account_id FOR UPDATE;
        IF NOT FOUND THEN -- it was refused for want of an account, so there is nothing that could be resolved
            RETURN NEXT ledger.as_decision(1, 'not-found', NULL);
            RETURN;
        END IF;
        -- A twin may have had the account before us.
        SELECT * INTO made FROM ledger.redemptions AS r
        WHERE r.client_id = p_client_id AND r.idempotency_key = p_key;
    END IF;

    IF made.redemption_id IS NULL THEN
        moment := clock_timestamp();
        IF account.lots_version <> account.version OR account.next_expiry <= moment THEN
            account := ledger.settle_account(account.account_id);
        END IF;
        IF p_kind = 'refund' THEN
            SELECT coalesce(sum(
                CASE r.kind WHEN 'redeem' THEN r.points WHEN 'capture' THEN r.points WHEN 'refund' THEN -r.points ELSE 0 END
            ), 0) INTO refundable
            FROM ledger.redemptions AS r
            WHERE (r.redemption_id = p_redemption_id OR r.origin_id = p_redemption_id) AND r.rejection IS NULL;
            moved := coalesce(p_points, nullif(refundable, 0), origin.points);
            reason := CASE
                WHEN moved > refundable THEN 'exceeds-redeemed'
                WHEN account.balance + moved > 9007199254740991 THEN 'balance-too-large'
            END;
        ELSE
            SELECT * INTO hold FROM ledger.holds AS h WHERE h.redemption_id = p_redemption_id;
            moved := CASE p_kind WHEN 'capture' THEN coalesce(p_points, origin.points) ELSE origin.points END;
            reason := CASE
                WHEN hold.redemption_id IS NULL OR hold.expires_at <= moment THEN 'hold-closed'
                WHEN moved > hold.points THEN 'exceeds-hold'
            END;
        END IF;

        IF reason IS NULL AND p_kind = 'refund' THEN
            UPDATE ledger.accounts AS a
            SET balance = a.balance + moved, version = a.version + 1, lots_version = a.version + 1
            WHERE a.account_id = account.account_id
            RETURNING * INTO account;
            INSERT INTO ledger.entries (transaction_id, account_id, amount, account_version, balance_after)
            VALUES
                (id, account.account_id, moved, account.version, account.balance),
                (id, 'system:burn', -moved, NULL, NULL);
            PERFORM ledger.return_to_lots(id, p_redemption_id, account.account_id, moved);
        ELSIF reason IS NULL THEN
            account := ledger.end_hold(id, hold, CASE p_kind WHEN 'capture' THEN moved ELSE 0 END);
        END IF;

        INSERT INTO ledger.redemptions (
            redemption_id, client_id, idempotency_key, fingerprint, account_id, points, rejection, balance, created_at,
            kind, origin_id, available
        )
        VALUES (
            id, p_client_id, p_key, p_fingerprint, account.account_id, moved, reason, account.balance, moment,
            p_kind, p_redemption_id, account.balance - account.held
        )
        RETURNING * INTO made; -- whoever takes the key at this very moment makes it a unique_violation: all is undone
        RETURN NEXT ledger.as_decision(1, 'decided', made);
    ELSE
        RETURN NEXT CASE
            WHEN made.fingerprint <> p_fingerprint THEN ledger.as_decision(1, 'key-reused', NULL)
            ELSE ledger.as_decision(1, 'replayed', made)
        END;
        PERFORM ledger.promise();
    END IF;
END
$$;

-- Grant points, once for each client's reference, opening accounts that are new; many in one transaction, each for itself.
--
-- p_wait   wait for accounts that somebody else has locked; without it those come back as 'busy'. To wait while one holds
--          other accounts' locks would hold up all that want those, so only a batch of one should.
-- result   'granted', 'replayed' from an earlier call, 'reference-reused': it belongs to another accrual, 'busy', or
--          'balance-too-large': the balance would leave the numbers that every JSON reader keeps. Of the last two nothing
--          is on record.
CREATE FUNCTION ledger.accrue_batch(
    p_references text[], p_account_ids text[], p_points bigint[], p_expires_at timestamptz[], p_wait boolean DEFAULT true
)
RETURNS TABLE (place integer, result text, accrual_id uuid, balance bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    item record;
    account ledger.accounts;
    made ledger.accruals;
    fresh boolean;
    replays boolean := false;
BEGIN
    FOR item IN -- in the order of the accounts: two batches never wait for each other in a circle
        SELECT u.place::integer AS place, u.reference, u.account_id, u.points, u.expires_at
        FROM unnest(p_references, p_account_ids, p_points, p_expires_at)
            WITH ORDINALITY AS u (reference, account_id, points, expires_at, place)
        ORDER BY u.account_id, u.place
    LOOP
        INSERT INTO ledger.accounts (account_id) VALUES (item.account_id) ON CONFLICT (account_id) DO NOTHING;
        place := item.place;
        IF p_wait THEN
            SELECT * INTO account FROM ledger.accounts AS a WHERE a.account_id = item.account_id FOR UPDATE;
        ELSE
            SELECT * INTO account FROM ledger.accounts AS a WHERE a.account_id = item.account_id FOR UPDATE SKIP LOCKED;
        END IF;
        IF NOT FOUND THEN
            result := 'busy';
            accrual_id := NULL;
            balance := NULL;
            RETURN NEXT;
            CONTINUE;
        END IF;
        SELECT * INTO made FROM ledger.accruals AS a WHERE a.reference = item.reference;
        IF NOT FOUND AND account.balance + item.points > 9007199254740991 THEN
            result := 'balance-too-large';
            accrual_id := NULL;
            balance := account.balance;
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF NOT FOUND THEN
            INSERT INTO ledger.accruals (accrual_id, reference, account_id, points, expires_at)
            VALUES (ledger.new_id(), item.reference, item.account_id, item.points, item.expires_at)
            ON CONFLICT (reference) DO NOTHING
            RETURNING * INTO made;
            fresh := FOUND;
            IF NOT fresh THEN -- somebody took the reference at this very moment, for another account
                SELECT * INTO STRICT made FROM ledger.accruals AS a WHERE a.reference = item.reference;
            END IF;
        ELSE
            fresh := false;
        END IF;
        IF fresh THEN
            IF account.lots_version <> account.version THEN
                account := ledger.settle_account(account.account_id);
            END IF;
            INSERT INTO ledger.lots (lot_id, account_id, points, remaining, expires_at)
            VALUES (made.accrual_id, item.account_id, item.points, item.points, item.expires_at);
            INSERT INTO ledger.lot_postings (transaction_id, lot_id, amount)
            VALUES (made.accrual_id, made.accrual_id, item.points);
            UPDATE ledger.accounts AS a
            SET
                balance = a.balance + item.points,
                version = a.version + 1,
                lots_version = a.version + 1,
                next_expiry = least(a.next_expiry, item.expires_at)
            WHERE a.account_id = item.account_id
            RETURNING * INTO account;
            INSERT INTO ledger.entries (transaction_id, account_id, amount, account_version, balance_after)
            VALUES
                (made.accrual_id, item.account_id, item.points, account.version, account.balance),
                (made.accrual_id, 'system:issuance', -item.points, NULL, NULL);
            result := 'granted';
        ELSIF (made.account_id, made.points) = (item.account_id, item.points)
            AND made.expires_at IS NOT DISTINCT FROM item.expires_at THEN
            result := 'replayed';
            replays := true;
        ELSE
            result := 'reference-reused';
            replays := true;
            made := NULL;
        END IF;
        accrual_id := made.accrual_id;
        balance := account.balance;
        RETURN NEXT;
    END LOOP;
    IF replays THEN
        PERFORM ledger.promise();
    END IF;
END
$$;

-- --- what may be read -----------------------------------------------------------------------------------------------

-- A redemption as it stands now: what was decided, and what became of it.
--
-- status   'rejected', 'redeemed', 'reserved', 'captured', 'voided' or 'expired'
CREATE TYPE ledger.redemption AS (
    redemption_id uuid,
    kind text,
    account_id text,
    points bigint,
    status text,
    rejection text,
    captured bigint,
    refunded bigint,
    balance bigint, -- of the account right after the decision
    available bigint,
    hold_expires_at timestamptz,
    created_at timestamptz,
    fingerprint bytea -- of the request that it was decided for
);

CREATE FUNCTION ledger.as_redemption(origin ledger.redemptions) RETURNS ledger.redemption
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT
        origin.redemption_id, origin.kind, origin.account_id, origin.points,
        CASE
            WHEN origin.rejection IS NOT NULL THEN 'rejected'
            WHEN origin.kind = 'redeem' THEN 'redeemed'
            WHEN f.ended = 'capture' THEN 'captured'
            WHEN f.ended = 'void' THEN 'voided'
            WHEN f.ended = 'expire' THEN 'expired'
            ELSE 'reserved'
        END,
        origin.rejection,
        CASE WHEN origin.kind = 'redeem' AND origin.rejection IS NULL THEN origin.points ELSE f.captured END,
        f.refunded, origin.balance, coalesce(origin.available, origin.balance), origin.hold_expires_at,
        origin.created_at, origin.fingerprint
    FROM (
        SELECT
            min(r.kind) FILTER (WHERE r.kind <> 'refund') AS ended, -- there is one at most
            coalesce(sum(r.points) FILTER (WHERE r.kind = 'capture'), 0)::bigint AS captured,
            coalesce(sum(r.points) FILTER (WHERE r.kind = 'refund'), 0)::bigint AS refunded
        FROM ledger.redemptions AS r
        WHERE r.origin_id = origin.redemption_id AND r.rejection IS NULL
    ) AS f
$$;

-- One redemption of a client. Telling that it exists is the same promise as a replay, so it waits like one.
CREATE FUNCTION ledger.redemption_of(p_client_id text, p_redemption_id uuid) RETURNS SETOF ledger.redemption
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT s.* FROM ledger.redemptions AS r CROSS JOIN LATERAL ledger.as_redemption(r) AS s
    WHERE r.redemption_id = p_redemption_id AND r.client_id = p_client_id AND r.origin_id IS NULL;
    IF FOUND THEN
        PERFORM ledger.promise();
    END IF;
END
$$;

-- The same by its key: what became of a deferred one.
CREATE FUNCTION ledger.redemption_of_key(p_client_id text, p_key text) RETURNS SETOF ledger.redemption
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT s.* FROM ledger.redemptions AS r CROSS JOIN LATERAL ledger.as_redemption(r) AS s
    WHERE r.client_id = p_client_id AND r.idempotency_key = p_key AND r.origin_id IS NULL;
    IF FOUND THEN
        PERFORM ledger.promise();
    END IF;
END
$$;

-- A page of a client's redemptions, the newest first, from before an id (NULL: from the newest).
CREATE FUNCTION ledger.redemptions_page(p_client_id text, p_before uuid, p_rows_max integer)
RETURNS SETOF ledger.redemption
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT s.* FROM ledger.redemptions AS r CROSS JOIN LATERAL ledger.as_redemption(r) AS s
    WHERE r.client_id = p_client_id AND r.origin_id IS NULL
        AND r.redemption_id < coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    ORDER BY r.redemption_id DESC
    LIMIT p_rows_max;
    IF FOUND THEN
        PERFORM ledger.promise();
    END IF;
END
$$;

-- An account's points. What has ended and was not taken away yet is no longer available.
--
-- expiries   of the points that are available: [{"expires_at", "points"}], the first to end first, at most p_expiries_max
CREATE FUNCTION ledger.account(p_account_id text, p_expiries_max integer)
RETURNS TABLE (account_id text, posted bigint, held bigint, available bigint, version bigint, expiries jsonb)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT
        a.account_id, a.balance, a.held,
        greatest(0, a.balance - a.held - coalesce((
            SELECT sum(l.remaining) FROM ledger.lots AS l
            WHERE l.account_id = a.account_id AND l.open AND l.expires_at <= clock_timestamp()
        ), 0)::bigint), -- below 0: 0001 has spent points of a lot that has ended since
        a.version,
        coalesce((
            SELECT jsonb_agg(jsonb_build_object('expires_at', e.expires_at, 'points', e.points) ORDER BY e.expires_at)
            FROM (
                SELECT l.expires_at, sum(l.remaining) AS points FROM ledger.lots AS l
                WHERE l.account_id = a.account_id AND l.open AND l.expires_at > clock_timestamp()
                GROUP BY l.expires_at ORDER BY l.expires_at LIMIT p_expiries_max
            ) AS e
        ), '[]')
    FROM ledger.accounts AS a WHERE a.account_id = p_account_id
$$;

-- A page of an account's entries, the newest first, from before a version (NULL: from the newest). They are promises too.
CREATE FUNCTION ledger.entries_page(p_account_id text, p_before bigint, p_rows_max integer)
RETURNS TABLE (
    version bigint, amount bigint, balance_after bigint, transaction_id uuid, kind text, created_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT
        e.account_version, e.amount, e.balance_after, e.transaction_id,
        coalesce(r.kind, CASE WHEN e.amount > 0 THEN 'accrual' ELSE 'expiration' END),
        e.created_at
    FROM ledger.entries AS e LEFT JOIN ledger.redemptions AS r ON r.redemption_id = e.transaction_id
    WHERE e.account_id = p_account_id AND e.account_version IS NOT NULL
        AND e.account_version < coalesce(p_before, 9223372036854775807)
    ORDER BY e.account_version DESC
    LIMIT p_rows_max;
    IF FOUND THEN
        PERFORM ledger.promise();
    END IF;
END
$$;

-- --- upkeep ---------------------------------------------------------------------------------------------------------

-- End holds whose time has come; returns how many. Accounts in use are left for the next time.
CREATE FUNCTION ledger.expire_holds(p_holds_max integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    hold ledger.holds;
    account ledger.accounts;
    id uuid;
    ended integer := 0;
BEGIN
    FOR hold IN
        SELECT * FROM ledger.holds AS h WHERE h.expires_at <= clock_timestamp() ORDER BY h.expires_at LIMIT p_holds_max
    LOOP
        SELECT * INTO account FROM ledger.accounts AS a
        WHERE a.account_id = hold.account_id FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        CONTINUE WHEN NOT EXISTS (SELECT FROM ledger.holds AS h WHERE h.redemption_id = hold.redemption_id);
        BEGIN
            IF account.lots_version <> account.version THEN
                PERFORM ledger.settle_account(account.account_id);
            END IF;
            id := ledger.new_id();
            account := ledger.end_hold(id, hold, 0);
            INSERT INTO ledger.redemptions (
                redemption_id, client_id, idempotency_key, fingerprint, account_id, points, balance, kind, origin_id,
                available
            )
            VALUES (
                id, 'system:upkeep', 'expire-' || hold.redemption_id,
                sha256(convert_to(hold.redemption_id::text, 'UTF8')), hold.account_id, hold.points, account.balance,
                'expire', hold.redemption_id, account.balance - account.held
            );
            ended := ended + 1;
        EXCEPTION WHEN data_exception OR check_violation THEN
            NULL; -- an account that does not fit stops no other; the verification tells of it
        END;
    END LOOP;
    RETURN ended;
END
$$;

-- Take away points whose lots have ended; returns of how many accounts, and how many points.
CREATE FUNCTION ledger.expire_lots(p_accounts_max integer, OUT accounts integer, OUT points bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    account ledger.accounts;
BEGIN
    accounts := 0;
    points := 0;
    FOR account IN
        SELECT * FROM ledger.accounts AS a
        WHERE a.next_expiry <= clock_timestamp() ORDER BY a.next_expiry LIMIT p_accounts_max
        FOR UPDATE SKIP LOCKED
    LOOP
        BEGIN
            points := points + account.balance - (ledger.settle_account(account.account_id)).balance;
            accounts := accounts + 1;
        EXCEPTION WHEN data_exception OR check_violation THEN
            NULL; -- as in ledger.expire_holds
        END;
    END LOOP;
END
$$;

-- Count the lots of accounts that have none yet, or that 0001 has moved since, from one account on in their order.
-- Returns the last account that was looked at, NULL at the end. Accounts in use are left out: they do it by themselves.
CREATE FUNCTION ledger.count_lots(p_after text, p_accounts_max integer) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    account ledger.accounts;
    last constant text := (
        SELECT max(n.account_id) FROM (
            SELECT a.account_id FROM ledger.accounts AS a
            WHERE a.account_id > p_after ORDER BY a.account_id LIMIT p_accounts_max
        ) AS n
    );
BEGIN
    FOR account IN
        SELECT * FROM ledger.accounts AS a
        WHERE a.account_id > p_after AND a.account_id <= last AND a.lots_version <> a.version
        FOR UPDATE SKIP LOCKED
    LOOP
        BEGIN
            PERFORM ledger.settle_account(account.account_id);
        EXCEPTION WHEN data_exception OR check_violation THEN
            NULL; -- as in ledger.expire_holds
        END;
    END LOOP;
    RETURN last;
END
$$;

-- The rows that the hash chain covers, as texts in its order; both bounds are transaction numbers, the upper one included.
-- Rows of 0001 have no number and count as 0.
CREATE FUNCTION ledger.chain_rows(p_above bigint, p_through bigint)
RETURNS TABLE (transaction_number bigint, line text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
    SELECT * FROM (
        SELECT
            coalesce(e.transaction_number, 0),
            concat_ws('|', 'entry', e.transaction_id, e.account_id, e.amount, coalesce(e.account_version, 0),
                coalesce(e.balance_after, 0), e.created_at)
        FROM ledger.entries AS e
        WHERE (e.transaction_number > p_above AND e.transaction_number <= p_through)
            OR (p_above < 0 AND e.transaction_number IS NULL)
        UNION ALL
        SELECT
            coalesce(r.transaction_number, 0),
            concat_ws('|', 'redemption', r.redemption_id, r.client_id, r.idempotency_key, encode(r.fingerprint, 'hex'),
                r.account_id, r.points, coalesce(r.rejection, ''), coalesce(r.balance, -1), r.created_at, r.kind,
                coalesce(r.origin_id::text, ''), coalesce(r.available, -1), coalesce(r.hold_expires_at::text, ''),
                coalesce(r.accepted_at::text, ''))
        FROM ledger.redemptions AS r
        WHERE (r.transaction_number > p_above AND r.transaction_number <= p_through)
            OR (p_above < 0 AND r.transaction_number IS NULL)
    ) AS both_kinds (transaction_number, line)
    ORDER BY transaction_number, line COLLATE "C" -- the same on every server
$$;

-- What the hash chain does not cover: a row for each row of the ledger above a transaction number.
CREATE FUNCTION ledger.unsealed(p_above bigint) RETURNS TABLE (transaction_number bigint, created_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(e.transaction_number, 0), e.created_at FROM ledger.entries AS e
    WHERE e.transaction_number > p_above OR (p_above < 0 AND e.transaction_number IS NULL)
    UNION ALL
    SELECT coalesce(r.transaction_number, 0), r.created_at FROM ledger.redemptions AS r
    WHERE r.transaction_number > p_above OR (p_above < 0 AND r.transaction_number IS NULL)
$$;

-- Extend the hash chain over the rows of transactions that have ended; at most about p_rows_max rows, whole transactions.
--
-- sealed     rows that the new seal covers; 0: there was nothing that could be sealed
-- backlog    rows that it does not cover yet
-- complete   everything that was written before this time is covered
--
-- A row is final when every transaction with a number below its own or equal has ended: that is what a snapshot's xmin
-- says. So a commit that waits for its standby holds the chain up, and is never left out of it.
CREATE FUNCTION ledger.seal(p_rows_max integer, OUT sealed bigint, OUT backlog bigint, OUT complete timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last ledger.seals;
    ended bigint;
    upper bigint;
    digest bytea;
BEGIN
    PERFORM pg_advisory_xact_lock(7164051264); -- one sealer at a time; any number, the migrations have the one before
    SELECT * INTO last FROM ledger.seals AS s ORDER BY s.number DESC LIMIT 1;
    ended := pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1;
    IF last.through > ended THEN
        RAISE EXCEPTION 'the chain is sealed through transaction %, but this server is at % only', last.through, ended
            USING ERRCODE = 'data_exception',
            HINT = 'A logical dump was restored? Move the transaction counter on with pg_resetwal --next-transaction-id.';
    END IF;
    complete := clock_timestamp();
    SELECT max(c.transaction_number) INTO upper FROM (
        SELECT u.transaction_number FROM ledger.unsealed(coalesce(last.through, -1)) AS u
        WHERE u.transaction_number <= ended ORDER BY u.transaction_number LIMIT p_rows_max
    ) AS c;
    sealed := 0;
    IF upper IS NOT NULL THEN
        SELECT
            count(*),
            sha256(string_agg(
                sha256(convert_to(r.line, 'UTF8')), ''::bytea ORDER BY r.transaction_number, r.line COLLATE "C"
            ))
        INTO sealed, digest
        FROM ledger.chain_rows(coalesce(last.through, -1), upper) AS r;
        INSERT INTO ledger.seals (number, through, rows, sha256)
        VALUES (
            coalesce(last.number, 0) + 1, upper, sealed,
            sha256(coalesce(last.sha256, ''::bytea) || int8send(upper) || int8send(sealed) || digest)
        );
    END IF;
    SELECT count(*), least(complete, min(u.created_at)) INTO backlog, complete
    FROM ledger.unsealed(coalesce(upper, last.through, -1)) AS u;
END
$$;

-- --- what programs of 0001 call -------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION ledger.redeem(
    p_client_id text, p_key text, p_fingerprint bytea, p_account_id text, p_points bigint
)
RETURNS TABLE (
    result text, redemption_id uuid, account_id text, points bigint, rejection text, balance bigint,
    created_at timestamptz
)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.result, d.redemption_id, d.account_id, d.points, d.rejection, d.balance, d.created_at
    FROM ledger.redeem_batch(
        ARRAY[p_client_id], ARRAY[p_key], ARRAY[p_fingerprint], ARRAY[p_account_id], ARRAY[p_points],
        ARRAY[NULL::integer], ARRAY[NULL::timestamptz], ARRAY[NULL::timestamptz], true
    ) AS d
$$;

-- For whoever runs the database, by hand; returns the account's balance.
CREATE OR REPLACE FUNCTION ledger.accrue(p_reference text, p_account_id text, p_points bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made record;
BEGIN
    SELECT * INTO STRICT made
    FROM ledger.accrue_batch(ARRAY[p_reference], ARRAY[p_account_id], ARRAY[p_points], ARRAY[NULL::timestamptz]);
    CASE made.result
        WHEN 'reference-reused' THEN
            RAISE EXCEPTION 'accrual reference % belongs to another accrual', p_reference
                USING ERRCODE = 'unique_violation';
        WHEN 'balance-too-large' THEN
            RAISE EXCEPTION 'the balance of % would become too large', p_account_id USING ERRCODE = 'check_violation';
        ELSE
            RETURN made.balance;
    END CASE;
END
$$;

-- --- who may do what ------------------------------------------------------------------------------------------------

REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    ledger.redeem_batch(text[], text[], bytea[], text[], bigint[], integer[], timestamptz[], timestamptz[], boolean),
    ledger.resolve(text, text, bytea, uuid, text, bigint),
    ledger.accrue_batch(text[], text[], bigint[], timestamptz[], boolean),
    ledger.redemption_of(text, uuid),
    ledger.redemption_of_key(text, text),
    ledger.redemptions_page(text, uuid, integer),
    ledger.account(text, integer),
    ledger.entries_page(text, bigint, integer)
TO redemption_app;

GRANT USAGE ON SCHEMA ledger TO redemption_upkeep, redemption_auditor;
GRANT EXECUTE ON FUNCTION
    ledger.expire_holds(integer),
    ledger.expire_lots(integer),
    ledger.count_lots(text, integer),
    ledger.seal(integer)
TO redemption_upkeep;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO redemption_auditor;
GRANT EXECUTE ON FUNCTION ledger.chain_rows(bigint, bigint) TO redemption_auditor;
