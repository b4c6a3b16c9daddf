import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.MessageProperties;
import java.util.UUID;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Publishes a job with RabbitMQ's client, as `text/plain`, and takes the answer by RabbitMQ's direct reply-to. */
public class Publish {
    public static void main(String[] arguments) throws Exception {
        String model = "all-minilm-l6-v2";
        String job = String.format(
            "{\"v\": 1, \"id\": \"%s\", \"model\": \"%s\", \"task\": \"embed\", \"input\": \"Water waits.\"}",
            UUID.randomUUID(), model);
        var factory = new ConnectionFactory();
        factory.setUri(System.getenv("FOREBAY_AMQP_URL"));
        try (var connection = factory.newConnection(); var channel = connection.createChannel()) {
            var replies = new ArrayBlockingQueue<String>(1);
            channel.basicConsume("amq.rabbitmq.reply-to", true,
                (tag, reply) -> replies.offer(new String(reply.getBody(), "UTF-8")), tag -> { });
            channel.confirmSelect();
            var properties = MessageProperties.PERSISTENT_TEXT_PLAIN.builder().replyTo("amq.rabbitmq.reply-to").build();
            channel.basicPublish("forebay.jobs", model, properties, job.getBytes("UTF-8"));
            channel.waitForConfirmsOrDie(10_000);
            String result = replies.poll(60, TimeUnit.SECONDS);
            if (result == null || !result.contains("\"state\":\"succeeded\"")) {
                throw new IllegalStateException("not answered, or refused: " + result);
            }
            System.out.println("succeeded: " + result.replaceAll(".*\"dim\":(\\d+).*", "$1") + " numbers");
        }
    }
}
