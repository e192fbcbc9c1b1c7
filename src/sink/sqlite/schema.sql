-- Version 1. SQLite keeps the comments inside of a statement: `SELECT sql FROM sqlite_schema` shows them.
-- Each statement below is one object; later versions are reached by statements of their own, never by editing these.

CREATE TABLE events (
    -- Every event once, as sparkspool normalizes it. NULL: absent, null or empty in the event. Times are UTC, RFC 3339
    -- with milliseconds: they sort as text, and SQLite's date functions take them. Flags are 1 or 0.

    -- The order of discovery, not of occurrence; never given twice. `WHERE seq > ?` finds what is new.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,

    -- What makes an event: these four.
    minute INTEGER NOT NULL,             -- of `time`, counted from 1970; 0 where there is no time
    id TEXT NOT NULL,                    -- the provider's event id; sha256: and a digest where it has none
    source_type TEXT NOT NULL,           -- SparkPost's name of the type; '' where it has none
    twin INTEGER NOT NULL,               -- 0; 1, 2, … for events without an id that equal another one in every value

    stream TEXT NOT NULL,                -- the configured stream that captured it first
    observed_at TEXT NOT NULL,           -- when sparkspool first stored it
    late INTEGER NOT NULL,               -- whether it appeared after its minute had been read
    late_by_ms INTEGER,                  -- then: observed_at minus time
    revisions INTEGER NOT NULL,          -- how often another body of it came; the row holds the last one
    revised_at TEXT,                     -- when the last one was stored

    type TEXT NOT NULL,                  -- sent, delivered, bounced, deferred, dropped, opened, clicked, spam_report, …
    type_id INTEGER,                     -- SendPost's id of the type
    event_group TEXT,                    -- SparkPost's group of the type
    time TEXT,                           -- when it happened

    recipient TEXT,
    recipient_domain TEXT,
    recipient_type TEXT,                 -- cc, bcc or archive
    sender TEXT,
    sending_domain TEXT,
    subject TEXT,                        -- the one text that may be empty
    message_id TEXT,                     -- the same on all events of a message
    transmission_id TEXT,
    campaign_id TEXT,
    template_id TEXT,
    template_version TEXT,
    subaccount_id TEXT,                  -- NULL: the primary account
    ip_pool TEXT,
    sending_ip TEXT,
    mailbox_provider TEXT,
    mailbox_provider_region TEXT,
    injected_at TEXT,                    -- when SparkPost accepted the message
    transactional INTEGER,

    -- Why something failed, was refused or is delayed. That these are filled is no bounce yet: type = 'bounced' is.
    bounce_class INTEGER,
    bounce_name TEXT,
    bounce_category TEXT,                -- hard, soft, block, admin or undetermined
    bounce_code INTEGER,                 -- the SMTP or HTTP status
    bounce_reason TEXT,                  -- the response, with addresses masked
    bounce_raw_reason TEXT,              -- the response, verbatim
    bounce_out_of_band INTEGER,          -- whether the receiver had accepted the message before

    -- What the recipient did, and with what.
    engagement_ip TEXT,
    engagement_user_agent TEXT,
    engagement_url TEXT,                 -- the link that was followed
    engagement_link_name TEXT,
    engagement_initial INTEGER,          -- on opens: the pixel at the top of the message
    engagement_amp INTEGER,
    engagement_mobile INTEGER,
    engagement_proxy INTEGER,
    engagement_prefetched INTEGER,       -- by a machine ahead of any reader: no proof of reading
    geo_country TEXT,
    geo_region TEXT,
    geo_city TEXT,
    geo_latitude REAL,
    geo_longitude REAL,

    complaint_type TEXT,                 -- RFC 5965: abuse, fraud, …
    complaint_by TEXT,
    complaint_to TEXT,

    -- How the message was handed to the recipient's server.
    delivery_retries INTEGER,            -- failed attempts before this one
    delivery_queue_ms INTEGER,           -- time in SparkPost's queue
    delivery_ip TEXT,
    delivery_method TEXT,

    metadata TEXT,                       -- the sender's metadata, a JSON object: metadata ->> '$.order.id'
    tags TEXT,                           -- the sender's tags, a JSON array: json_each(tags)
    raw TEXT,                            -- the event as SparkPost sent it, JSON; NULL with include_raw = false

    UNIQUE (minute, id, source_type, twin)
) STRICT;

-- Where keys are scattered, as recipients and messages are, an index costs as much as a third of writing the row: there are
-- two of that kind, for the questions that are asked of one person or one message.
CREATE INDEX events_by_time ON events (time, type);
CREATE INDEX events_by_recipient ON events (recipient);
CREATE INDEX events_by_message ON events (message_id);
CREATE INDEX events_by_campaign ON events (campaign_id, time) WHERE campaign_id IS NOT NULL;

CREATE VIEW daily_counts (day, type, events) AS
    -- How many events of each type happened on each day (UTC). Answered by events_by_time alone.
    SELECT substr(time, 1, 10), type, count(*) FROM events GROUP BY 1, 2;

CREATE VIEW bounce_rates (recipient_domain, bounce_class, bounce_name, bounce_category, bounces, sent, delivered,
                          of_sent, of_delivered) AS
    -- For each recipient domain (in lower case) and bounce class, out-of-band bounces among them: how many messages
    -- bounced, and what share that is of the messages sent to the domain and of those delivered to it. NULL where the
    -- table holds none of those, for one because the stream captures no injections. Without a domain: not listed. Reads the whole table.
    WITH totals (domain, sent, delivered) AS (
        SELECT lower(recipient_domain), sum(type = 'sent'), sum(type = 'delivered') FROM events GROUP BY 1
    ), bounced (domain, class, name, category, events) AS (
        SELECT lower(recipient_domain), bounce_class, bounce_name, bounce_category, count(*) FROM events
        WHERE type = 'bounced' GROUP BY 1, 2, 3, 4
    )
    SELECT domain, class, name, category, events, sent, delivered,
           1.0 * events / nullif(sent, 0), 1.0 * events / nullif(delivered, 0)
    FROM bounced JOIN totals USING (domain);

CREATE VIEW message_timeline (message_id, time, type, what, recipient, event_seq) AS
    -- What happened to a message, in the order of time: SELECT * FROM message_timeline WHERE message_id = '…'.
    SELECT message_id, time, type,
           CASE
               WHEN type IN ('opened', 'clicked', 'unsubscribed')
                   THEN coalesce(engagement_url, iif(engagement_prefetched, 'by a machine', NULL), engagement_user_agent)
               WHEN type = 'spam_report' THEN complaint_type
               WHEN type = 'delivered' THEN iif(delivery_retries > 0, 'after ' || delivery_retries || ' retries', NULL)
               ELSE coalesce(bounce_name || ': ' || bounce_reason, bounce_reason, bounce_name)
           END,
           recipient, seq
    FROM events WHERE message_id IS NOT NULL ORDER BY message_id, time, seq;

CREATE TABLE sparkspool (
    -- What sparkspool knows of this database: `id` tells it from every other one.
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
