-- Version 1. Later versions are reached by statements of their own, never by editing these. {events}, {tables}, {position}
-- and {index:…} stand for names; to be run in one transaction.

CREATE TABLE {events} (
    -- The order of discovery, not of occurrence; never given twice.
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,

    -- What makes an event: these four.
    minute bigint NOT NULL,
    id text NOT NULL,
    source_type text NOT NULL,
    twin bigint NOT NULL,

    stream text NOT NULL,
    observed_at timestamptz NOT NULL,
    late boolean NOT NULL,
    late_by_ms bigint,
    revisions bigint NOT NULL,
    revised_at timestamptz,

    type text NOT NULL,
    type_id bigint,
    event_group text,
    "time" timestamptz,

    recipient text,
    recipient_domain text,
    recipient_type text,
    sender text,
    sending_domain text,
    subject text,
    message_id text,
    transmission_id text,
    campaign_id text,
    template_id text,
    template_version text,
    subaccount_id text,
    ip_pool text,
    sending_ip text,
    mailbox_provider text,
    mailbox_provider_region text,
    injected_at timestamptz,
    transactional boolean,

    bounce_class bigint,
    bounce_name text,
    bounce_category text,
    bounce_code bigint,
    bounce_reason text,
    bounce_raw_reason text,
    bounce_out_of_band boolean,

    engagement_ip text,
    engagement_user_agent text,
    engagement_url text,
    engagement_link_name text,
    engagement_initial boolean,
    engagement_amp boolean,
    engagement_mobile boolean,
    engagement_proxy boolean,
    engagement_prefetched boolean,
    geo_country text,
    geo_region text,
    geo_city text,
    geo_latitude double precision,
    geo_longitude double precision,

    complaint_type text,
    complaint_by text,
    complaint_to text,

    delivery_retries bigint,
    delivery_queue_ms bigint,
    delivery_ip text,
    delivery_method text,

    metadata jsonb,
    tags jsonb,
    raw json,

    UNIQUE (minute, id, source_type, twin)
);

COMMENT ON TABLE {events} IS 'Every event once, as sparkspool normalizes it. NULL: absent, null or empty in the event.';
COMMENT ON COLUMN {events}.seq IS 'The order of discovery, not of occurrence; never given twice.';
COMMENT ON COLUMN {events}.minute IS 'Of time, counted from 1970; 0 where there is no time. Part of the key.';
COMMENT ON COLUMN {events}.id IS 'The provider''s event id; sha256: and a digest where it has none. Part of the key.';
COMMENT ON COLUMN {events}.twin IS '0; 1, 2, … for events without an id that equal another one in every value.';
COMMENT ON COLUMN {events}.observed_at IS 'When sparkspool first stored it.';
COMMENT ON COLUMN {events}.revisions IS 'How often another body of it came; the row holds the last one.';
COMMENT ON COLUMN {events}.raw IS 'The event as SparkPost sent it, byte for byte; NULL with include_raw = false.';

CREATE INDEX {index:by_time} ON {events} ("time", type);
CREATE INDEX {index:by_recipient} ON {events} (recipient);
CREATE INDEX {index:by_message} ON {events} (message_id, "time");
CREATE INDEX {index:by_campaign} ON {events} (campaign_id, "time") WHERE campaign_id IS NOT NULL;
