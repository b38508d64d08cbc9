-- The ledger: double entry, append-only, written by functions alone. Runs as redemption_owner.
--
-- Points are BIGINT, at most 2^53-1: the largest whole number that every JSON reader keeps.
-- The entries are the truth. A guest account's row caches its balance; system accounts have no row, because one row that
-- every redemption updates would put them all in a queue.

CREATE TABLE ledger.accounts (
    account_id text PRIMARY KEY CHECK (account_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    balance bigint NOT NULL DEFAULT 0 CHECK (balance BETWEEN 0 AND 9007199254740991),
    version bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70); -- room on the page, so that a new balance touches no index

-- One row a decision, kept for the life of the ledger: the key is unique in the transaction that moves the points.
CREATE TABLE ledger.redemptions (
    redemption_id uuid PRIMARY KEY,
    client_id text NOT NULL CHECK (client_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    idempotency_key text NOT NULL CHECK (idempotency_key ~ '^[A-Za-z0-9_-]{16,128}$'),
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    account_id text NOT NULL CHECK (account_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    points bigint NOT NULL CHECK (points BETWEEN 1 AND 9007199254740991),
    rejection text CHECK (rejection IN ('insufficient-points', 'unknown-account')), -- NULL: redeemed
    balance bigint CHECK (balance >= 0), -- of the account right after the decision; NULL: no such account
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (client_id, idempotency_key),
    CHECK (rejection IS DISTINCT FROM 'insufficient-points' OR balance < points),
    CHECK ((balance IS NULL) = (rejection IS NOT DISTINCT FROM 'unknown-account'))
);

CREATE TABLE ledger.accruals (
    accrual_id uuid PRIMARY KEY,
    reference text NOT NULL UNIQUE CHECK (length(reference) BETWEEN 1 AND 128),
    account_id text NOT NULL REFERENCES ledger.accounts,
    points bigint NOT NULL CHECK (points BETWEEN 1 AND 9007199254740991),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row for each account that a transaction touches; the amounts of a transaction add up to zero.
-- No foreign key to the account: on a system account it would be the hot row again.
CREATE TABLE ledger.entries (
    transaction_id uuid NOT NULL, -- a redemption or an accrual
    account_id text NOT NULL,
    amount bigint NOT NULL CHECK (amount <> 0),
    account_version bigint CHECK (account_version >= 1), -- 1, 2, 3 ... for each guest account: the order of its entries
    balance_after bigint CHECK (balance_after >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (transaction_id, account_id), -- a transaction can never post twice
    CHECK (account_id !~ ':' OR account_id IN ('system:burn', 'system:issuance')),
    CHECK ((account_id LIKE 'system:%') = (account_version IS NULL)),
    CHECK ((account_version IS NULL) = (balance_after IS NULL))
);

CREATE UNIQUE INDEX entries_account_version ON ledger.entries (account_id, account_version)
WHERE account_version IS NOT NULL;

-- --- nothing that was written changes -------------------------------------------------------------------------------

CREATE FUNCTION ledger.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'ledger.% is append-only: % is not allowed; write a correcting transaction', tg_table_name, tg_op
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.entries
FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ledger.entries
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.redemptions
FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ledger.redemptions
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.accruals
FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ledger.accruals
FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- --- the only writers -----------------------------------------------------------------------------------------------

-- RFC 9562 version 7: the time in milliseconds, then chance. Ids made one after the other lie side by side in the index.
CREATE FUNCTION ledger.new_id() RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    milliseconds constant bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
    bytes bytea := uuid_send(gen_random_uuid());
BEGIN
    bytes := substring(int8send(milliseconds) FROM 3) || substring(bytes FROM 7);
    RETURN encode(set_byte(bytes, 6, get_byte(bytes, 6) & 15 | 112), 'hex')::uuid;
END
$$;

-- Spend points exactly once for a client's key. One call is one transaction.
--
-- result      'decided' now, 'replayed' from an earlier call, or 'key-reused': the key belongs to another request, and
--             then every other column is NULL
-- rejection   NULL when the points were deducted
CREATE FUNCTION ledger.redeem(
    p_client_id text, p_key text, p_fingerprint bytea, p_account_id text, p_points bigint
)
RETURNS TABLE (
    result text, redemption_id uuid, account_id text, points bigint, rejection text, balance bigint,
    created_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    account ledger.accounts;
    made ledger.redemptions;
    reason text;
BEGIN
    -- First without a lock, so that a storm of retries does not queue on the account.
    SELECT * INTO made FROM ledger.redemptions AS r
    WHERE r.client_id = p_client_id AND r.idempotency_key = p_key;

    IF NOT FOUND THEN
        SELECT * INTO account FROM ledger.accounts AS a WHERE a.account_id = p_account_id FOR UPDATE;
        IF NOT FOUND THEN
            reason := 'unknown-account';
        ELSIF account.balance < p_points THEN
            reason := 'insufficient-points';
        ELSE
            account.balance := account.balance - p_points;
            account.version := account.version + 1;
        END IF;

        INSERT INTO ledger.redemptions
            (redemption_id, client_id, idempotency_key, fingerprint, account_id, points, rejection, balance)
        VALUES
            (ledger.new_id(), p_client_id, p_key, p_fingerprint, p_account_id, p_points, reason, account.balance)
        ON CONFLICT (client_id, idempotency_key) DO NOTHING
        RETURNING * INTO made;

        IF FOUND THEN
            IF reason IS NULL THEN
                UPDATE ledger.accounts AS a SET balance = account.balance, version = account.version
                WHERE a.account_id = p_account_id;
                INSERT INTO ledger.entries (transaction_id, account_id, amount, account_version, balance_after)
                VALUES
                    (made.redemption_id, p_account_id, -p_points, account.version, account.balance),
                    (made.redemption_id, 'system:burn', p_points, NULL, NULL);
            END IF;
            RETURN QUERY SELECT
                'decided', made.redemption_id, made.account_id, made.points, made.rejection, made.balance,
                made.created_at;
            RETURN;
        END IF;

        -- A twin of this call was faster; its row is visible now.
        SELECT * INTO STRICT made FROM ledger.redemptions AS r
        WHERE r.client_id = p_client_id AND r.idempotency_key = p_key;
    END IF;

    -- An answer is a promise. The row may so far be on this server only, when the first call was cancelled while it
    -- waited for a synchronous standby. A commit that writes nothing does not wait; this record makes it wait.
    PERFORM pg_logical_emit_message(true, 'redemption-replay', '');

    IF made.fingerprint <> p_fingerprint THEN
        RETURN QUERY SELECT
            'key-reused', NULL::uuid, NULL::text, NULL::bigint, NULL::text, NULL::bigint, NULL::timestamptz;
    ELSE
        RETURN QUERY SELECT
            'replayed', made.redemption_id, made.account_id, made.points, made.rejection, made.balance,
            made.created_at;
    END IF;
END
$$;

-- Read one redemption. Telling a caller that it exists is the same promise as a replay, so it waits like one.
CREATE FUNCTION ledger.find_redemption(p_redemption_id uuid)
RETURNS TABLE (
    redemption_id uuid, account_id text, points bigint, rejection text, balance bigint, created_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT r.redemption_id, r.account_id, r.points, r.rejection, r.balance, r.created_at
    FROM ledger.redemptions AS r WHERE r.redemption_id = p_redemption_id;
    IF FOUND THEN
        PERFORM pg_logical_emit_message(true, 'redemption-read', '');
    END IF;
END
$$;

-- Grant points, once for each reference; opens the account when it is new. Returns the account's balance.
-- Not for the service: whoever may call this makes money.
CREATE FUNCTION ledger.accrue(p_reference text, p_account_id text, p_points bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    account ledger.accounts;
    made ledger.accruals;
BEGIN
    INSERT INTO ledger.accounts (account_id) VALUES (p_account_id) ON CONFLICT (account_id) DO NOTHING;
    SELECT * INTO STRICT account FROM ledger.accounts AS a WHERE a.account_id = p_account_id FOR UPDATE;

    INSERT INTO ledger.accruals (accrual_id, reference, account_id, points)
    VALUES (ledger.new_id(), p_reference, p_account_id, p_points)
    ON CONFLICT (reference) DO NOTHING
    RETURNING * INTO made;

    IF NOT FOUND THEN
        SELECT * INTO STRICT made FROM ledger.accruals AS a WHERE a.reference = p_reference;
        IF made.account_id <> p_account_id OR made.points <> p_points THEN
            RAISE EXCEPTION 'accrual reference % belongs to another accrual', p_reference
                USING ERRCODE = 'unique_violation';
        END IF;
        RETURN account.balance;
    END IF;

    UPDATE ledger.accounts AS a SET balance = a.balance + p_points, version = a.version + 1
    WHERE a.account_id = p_account_id
    RETURNING * INTO account;
    INSERT INTO ledger.entries (transaction_id, account_id, amount, account_version, balance_after)
    VALUES
        (made.accrual_id, p_account_id, p_points, account.version, account.balance),
        (made.accrual_id, 'system:issuance', -p_points, NULL, NULL);
    RETURN account.balance;
END
$$;

-- --- what may be read -----------------------------------------------------------------------------------------------

CREATE VIEW ledger.balances AS
SELECT account_id, balance, version FROM ledger.accounts;

CREATE VIEW ledger.schema_version AS
SELECT coalesce(max(number), 0) AS version FROM ledger.migrations;

-- --- who may do what ------------------------------------------------------------------------------------------------

REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger TO redemption_app;
GRANT EXECUTE ON FUNCTION ledger.redeem(text, text, bytea, text, bigint) TO redemption_app;
GRANT EXECUTE ON FUNCTION ledger.find_redemption(uuid) TO redemption_app;
GRANT SELECT ON ledger.balances, ledger.schema_version TO redemption_app;
