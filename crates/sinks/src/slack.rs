//! Alerts as messages in a chat: Slack, and what takes the same form (Mattermost, Rocket.Chat).
//!
//! One attachment a message: its colour shows the priority, its fields are those of the alert. Everything in it comes
//! from observed processes in the end, so it is cut to what a chat shows, and can neither call people nor form links.

use api::sink::SlackSink;
use rules::alert::{Alert, Priority, iso8601};
use serde_json::{Value, json};

use crate::{
    SendError, Sink,
    http::{Endpoint, Sender},
    secrets::Secrets,
    webhook::{WebhookConfigError, secret_endpoint},
};

pub(crate) const DOC: &str = "Each alert is one message through an incoming webhook of Slack, Mattermost or Rocket.Chat: \
    the rule, the output, a colour for the priority, and up to 20 of the output's fields. Texts are cut to 3000 \
    characters and fields to 500, and mentions in them call nobody. The address is a secret: whoever knows it can post, so it comes \
    from a Secret and is never shown. Answers mean what they mean for a webhook. Without `spec.rateLimit`, one message a \
    second is sent, and 20 at once after a quiet time.";

/// Characters of the output.
const TEXT_CHARS: usize = 3000;
/// Characters of one field.
const FIELD_CHARS: usize = 500;
/// Characters that stand beside another field.
const SHORT_CHARS: usize = 40;
/// Fields of one message.
const FIELDS: usize = 20;
/// Characters of the rule's name.
const TITLE_CHARS: usize = 200;

/// The endpoint that a spec describes.
pub(crate) fn endpoint(spec: &SlackSink, secrets: &Secrets) -> Result<Endpoint, WebhookConfigError> {
    let field = "spec.slack.urlRef";
    secret_endpoint(field, secrets.secret(field, &spec.url_ref)?)
}

/// A chat.
pub(crate) struct Slack(Sender);

impl Slack {
    pub fn new(sender: Sender) -> Self {
        Self(sender)
    }
}

impl Sink for Slack {
    fn prepare(&mut self) -> Result<(), SendError> {
        Ok(self.0.prepare()?)
    }

    fn send(&mut self, alert: &Alert) -> Result<(), SendError> {
        Ok(self.0.send(message(alert).to_string().into_bytes())?)
    }

    fn reopen(&mut self) {}
}

/// The body of the request.
fn message(alert: &Alert) -> Value {
    let headline = format!("{}: {}", alert.priority.name(), harmless(&alert.rule, TITLE_CHARS));
    let shown = alert.output_fields.iter().filter(|(_, value)| !value.is_null());
    let mut fields: Vec<Value> = vec![field("node", &alert.hostname), field("source", &alert.source)];
    if !alert.tags.is_empty() {
        fields.push(field("tags", &alert.tags.join(", ")));
    }
    let total = shown.clone().count();
    fields.extend(shown.take(FIELDS).map(|(name, value)| match value {
        Value::String(text) => field(name, text),
        other => field(name, &other.to_string()),
    }));
    if total > FIELDS {
        fields.push(field("and", &format!("{} more", total - FIELDS)));
    }
    json!({
        "text": headline,
        "attachments": [{
            "color": colour(alert.priority),
            "fallback": headline,
            "text": harmless(&alert.message, TEXT_CHARS),
            "fields": fields,
            "footer": format!("Gyrfalcon · {}", iso8601(alert.time_ns)),
            "ts": alert.time_ns / 1_000_000_000,
        }],
    })
}

fn field(name: &str, value: &str) -> Value {
    let short = value.chars().nth(SHORT_CHARS).is_none();
    json!({"title": harmless(name, FIELD_CHARS), "value": harmless(value, FIELD_CHARS), "short": short})
}

fn colour(priority: Priority) -> &'static str {
    match priority {
        Priority::Emergency | Priority::Alert => "#8b0000",
        Priority::Critical => "#d40e0d",
        Priority::Error => "#e8590c",
        Priority::Warning => "#f2c744",
        Priority::Notice => "#2f80ed",
        Priority::Informational => "#5bb974",
        Priority::Debug => "#9aa0a6",
    }
}

/// Text that means nothing to a chat, of bounded length.
fn harmless(text: &str, chars: usize) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at >= chars {
            out.push('…');
            break;
        }
        match c {
            // `<!channel>` and `<https://…|text>` are spelt with these.
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // Mattermost and Rocket.Chat look for `@all` in plain text, too; they don't find it across this.
            '@' => out.push_str("@\u{200b}"),
            '\n' => out.push('\n'),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_message_tells_what_happened() {
        let mut alert = testing::alert("Read shadow", Priority::Critical, &["T1555", "files"]);
        alert.output_fields.push(("proc.pname".into(), Value::Null));
        let message = message(&alert);
        assert_eq!(message["text"], "Critical: Read shadow");
        let attachment = &message["attachments"][0];
        assert_eq!(attachment["color"], "#d40e0d");
        assert_eq!(attachment["text"], "Read shadow happened");
        assert_eq!(attachment["ts"], 1_700_000_000);
        let fields: Vec<_> = attachment["fields"].as_array().expect("fields").iter().collect();
        let titles: Vec<_> = fields.iter().map(|field| field["title"].as_str().expect("a title")).collect();
        assert_eq!(titles, ["node", "source", "tags", "proc.name"]);
        assert_eq!(fields[3]["value"], "nc");
    }

    #[test]
    fn a_process_can_neither_call_people_nor_flood_the_chat() {
        let mut alert = testing::alert("x", Priority::Notice, &[]);
        alert.message = format!("<!channel> @all {}", "y".repeat(10_000)).into();
        alert.output_fields = (0..100).map(|at| (format!("f{at}").into(), Value::String("z".repeat(5000)))).collect();
        let message = message(&alert);
        let text = message["attachments"][0]["text"].as_str().expect("text");
        assert!(text.starts_with("&lt;!channel&gt; @\u{200b}all y"), "{text}");
        assert!(text.ends_with("y…"));
        let fields = message["attachments"][0]["fields"].as_array().expect("fields");
        assert_eq!(fields.len(), 23);
        assert_eq!(fields[22]["value"], "80 more");
        assert!(message.to_string().len() < 20_000);
    }
}
