// Publishes a job with amqplib and takes the answer by RabbitMQ's direct reply-to.
import { randomUUID } from "node:crypto";
import amqplib from "amqplib";

const model = "all-minilm-l6-v2";
const job = {
  v: 1, id: randomUUID(), model, task: "embed", input: "Water waits behind the gate.", submitted_at_ms: Date.now(),
};
const connection = await amqplib.connect(process.env.FOREBAY_AMQP_URL);
const channel = await connection.createConfirmChannel();
const reply = new Promise((resolve, reject) => {
  setTimeout(() => reject(new Error("no answer within 60 s")), 60_000).unref();
  channel.consume("amq.rabbitmq.reply-to", resolve, { noAck: true }).then(() => {
    channel.publish("forebay.jobs", model, Buffer.from(JSON.stringify(job)), {
      persistent: true, replyTo: "amq.rabbitmq.reply-to",
    }, (error) => error && reject(error));
  }, reject);
});
const result = JSON.parse((await reply).content.toString());
await connection.close();
if (result.state !== "succeeded") throw new Error(result.error.message);
console.log(`${result.state}: ${result.output.dim} numbers`);
