// Publishes a job with RabbitMQ.Client and takes the answer by RabbitMQ's direct reply-to: dotnet run Publish.cs
#:package RabbitMQ.Client@7.2.2
using System.Text.Json;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

const string model = "all-minilm-l6-v2";
const string replyTo = "amq.rabbitmq.reply-to";
var job = new Dictionary<string, object> {
    ["v"] = 1, ["id"] = Guid.NewGuid().ToString(), ["model"] = model, ["task"] = "embed", ["input"] = "Water waits.",
};
var factory = new ConnectionFactory { Uri = new Uri(Environment.GetEnvironmentVariable("FOREBAY_AMQP_URL")!) };
await using var connection = await factory.CreateConnectionAsync();
// A publish ends when RabbitMQ has confirmed it, and throws when it has not taken the job.
await using var channel = await connection.CreateChannelAsync(new CreateChannelOptions(true, true));
var answer = new TaskCompletionSource<JsonElement>();
var consumer = new AsyncEventingBasicConsumer(channel);
consumer.ReceivedAsync += (_, reply) => {
    answer.TrySetResult(JsonSerializer.Deserialize<JsonElement>(reply.Body.Span));
    return Task.CompletedTask;
};
await channel.BasicConsumeAsync(replyTo, autoAck: true, consumer);
var properties = new BasicProperties { Persistent = true, ReplyTo = replyTo };
await channel.BasicPublishAsync("forebay.jobs", model, false, properties, JsonSerializer.SerializeToUtf8Bytes(job));
var result = await answer.Task.WaitAsync(TimeSpan.FromSeconds(60));
if (result.GetProperty("state").GetString() != "succeeded")
    throw new Exception(result.GetProperty("error").GetProperty("message").GetString());
Console.WriteLine($"succeeded: {result.GetProperty("output").GetProperty("dim")} numbers");
