//! A delivery as the API shows it, of 764 bytes. It exists so that benchmarks of sinks hand over the same events.

use sparkspool::core::time::UtcMillis;

/// The event of this number: 15 ms after the one before, to scattered recipients.
pub(crate) fn event(id: u64) -> String {
    let at = UtcMillis::from_secs(1_794_500_000).plus(i64::try_from(id).expect("a small number") * 15);
    let person = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    format!(
        r#"{{"type":"delivery","campaign_id":"Autumn Sale 2026","customer_id":"4217","delv_method":"esmtp","event_id":"{id}","friendly_from":"news@shop.example.com","injection_time":"2026-11-12T14:25:07.000Z","ip_address":"203.0.113.17","ip_pool":"marketing","message_id":"{person:012x}{id:08x}","msg_from":"msprvs1=17827RA6TC8Pz=bounces-12345@sparkpostmail1.com","msg_size":"13370","num_retries":"0","queue_time":"160","rcpt_meta":{{"customKey":"customValue"}},"rcpt_tags":[],"rcpt_to":"p{person}@mail.example.net","recipient_domain":"mail.example.net","sending_domain":"shop.example.com","sending_ip":"198.51.100.7","subject":"Autumn deals are here","template_id":"templ-1234","template_version":"3","timestamp":"{at}","transmission_id":"65832150921904138"}}"#
    )
}
