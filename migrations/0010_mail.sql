-- Mails on their way out. Whoever has something to say to a person puts a row here; one instance at a time hands them to a
-- mail server. To whom and what is sealed (kernel::Sealed), and gone as soon as there is nothing more to be done with it.

CREATE SCHEMA mail;

CREATE TABLE mail.outbox (
    -- Whoever puts the same id again has put it already.
    id         text        PRIMARY KEY,
    -- What sort of mail it is, such as `verify-email`: for counting.
    kind       text        NOT NULL,
    -- Whose key seals it; nobody's: one that all such mails share.
    about      text,
    content    jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When it is tried next. Claiming moves it on, so that a mail whose sender died is tried again.
    due_at     timestamptz NOT NULL DEFAULT now(),
    tries      integer     NOT NULL DEFAULT 0,
    -- Why the last try failed.
    reason     text,
    settled_at timestamptz,
    sent       boolean     NOT NULL DEFAULT false,
    CHECK ((content IS NULL) = (settled_at IS NOT NULL)),
    CHECK (settled_at IS NOT NULL OR NOT sent)
);
CREATE INDEX outbox_due ON mail.outbox (due_at) WHERE settled_at IS NULL;
CREATE INDEX outbox_about ON mail.outbox (about) WHERE about IS NOT NULL;
CREATE INDEX outbox_settled ON mail.outbox (settled_at) WHERE settled_at IS NOT NULL;
