//! `forebay queues`

use crate::{
    context::{Context, unless_stopped},
    error::CommandResult,
    output::grouped,
    queue_status,
};

pub(crate) async fn run(context: &mut Context) -> CommandResult {
    let client = context.client()?;
    let asked = async { Ok(queue_status::queues(&client, &context.config).await?) };
    let found = unless_stopped(&context.stop, asked).await?;
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
            let info = &queue.info;
            let [ready, in_work] = [info.ready, queue.unacknowledged]
                .map(|count| count.map_or("?".to_owned(), grouped));
            [info.name.clone(), ready, in_work, info.consumers.to_string()]
        })
        .collect();
    context.output.table(["QUEUE", "READY>", "IN WORK>", "CONSUMERS>"], &rows)?;
    if context.config.management_url.is_none() {
        eprintln!("forebay: the number in work needs a management_url in the configuration");
    }
    for queue in queues.iter().map(|queue| &queue.info).filter(|queue| queue.ready.is_none()) {
        eprintln!("forebay: how much {} holds is unknown: its leader can't be reached", queue.name);
    }
    for queue in queues.iter().map(|queue| &queue.info).filter(|queue| queue.is_trouble()) {
        eprintln!("forebay: {} holds messages that no worker consumes", queue.name);
    }
    Ok(())
}
