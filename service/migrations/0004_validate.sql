-- The checks of 0002 on the rows that were there before. Reads the tables beside those who write to them.

ALTER TABLE ledger.accounts VALIDATE CONSTRAINT accounts_held_check;
ALTER TABLE ledger.redemptions VALIDATE CONSTRAINT redemptions_texts_check;
ALTER TABLE ledger.redemptions VALIDATE CONSTRAINT redemptions_rejection_check;
ALTER TABLE ledger.redemptions VALIDATE CONSTRAINT redemptions_insufficient_check;
ALTER TABLE ledger.redemptions VALIDATE CONSTRAINT redemptions_kind_check;
ALTER TABLE ledger.redemptions VALIDATE CONSTRAINT redemptions_origin_check;
ALTER TABLE ledger.redemptions VALIDATE CONSTRAINT redemptions_hold_check;
ALTER TABLE ledger.entries VALIDATE CONSTRAINT entries_account_id_check;
