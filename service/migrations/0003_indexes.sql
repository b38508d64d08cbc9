-- outside a transaction: an index is built without blocking anybody only there. Each statement can be run again.

DROP INDEX CONCURRENTLY IF EXISTS ledger.redemptions_client;
CREATE INDEX CONCURRENTLY redemptions_client ON ledger.redemptions (client_id, redemption_id) WHERE origin_id IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS ledger.redemptions_origin;
CREATE INDEX CONCURRENTLY redemptions_origin ON ledger.redemptions (origin_id) WHERE origin_id IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS ledger.accounts_next_expiry;
CREATE INDEX CONCURRENTLY accounts_next_expiry ON ledger.accounts (next_expiry) WHERE next_expiry IS NOT NULL;
-- BRIN: rows lie in about the order of their transactions, and it costs a write nearly nothing.
DROP INDEX CONCURRENTLY IF EXISTS ledger.redemptions_transaction_number;
CREATE INDEX CONCURRENTLY redemptions_transaction_number ON ledger.redemptions
USING brin (transaction_number) WITH (autosummarize = on, pages_per_range = 16);
DROP INDEX CONCURRENTLY IF EXISTS ledger.entries_transaction_number;
CREATE INDEX CONCURRENTLY entries_transaction_number ON ledger.entries
USING brin (transaction_number) WITH (autosummarize = on, pages_per_range = 16);
