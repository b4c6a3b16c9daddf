//! `forebay queues`

use super::{CommandResult, Context, unless_stopped};
use crate::output::grouped;

pub(super) async fn run(context: &mut Context) -> CommandResult {
    let client = context.client()?;
    let found = unless_stopped(&context.stop, async { Ok(client.queues().await?) }).await?;
    client.close().await;
    let queues = found.queues;
    if let Some(error) = &found.management_error {
        eprintln!("forebay: {error}");
    }
    if context.output.json {
        for queue in &queues {
            context.output.json_line(queue)?;
        }
        return Ok(());
    }
    let rows: Vec<[String; 4]> = queues
        .iter()
        .map(|queue| {
            let name = queue.name.clone();
            let unacknowledged = queue.unacknowledged.map_or("?".to_owned(), grouped);
            [name, grouped(queue.ready), unacknowledged, queue.consumers.to_string()]
        })
        .collect();
    context.output.table(["QUEUE", "READY>", "IN WORK>", "CONSUMERS>"], &rows)?;
    if context.config.management_url.is_none() {
        eprintln!("forebay: what is in work shows with a management_url in the configuration");
    }
    for queue in queues.iter().filter(|queue| queue.is_trouble()) {
        eprintln!("forebay: {} holds messages that nobody will take by itself", queue.name);
    }
    Ok(())
}
