// Publishes a job with amqp091-go and takes the answer by RabbitMQ's direct reply-to.
package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"

	amqp "github.com/rabbitmq/amqp091-go"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	channel := must(must(amqp.Dial(os.Getenv("FOREBAY_AMQP_URL"))).Channel())
	replies := must(channel.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil))
	random := make([]byte, 16)
	must(rand.Read(random))
	const model = "all-minilm-l6-v2"
	// A struct needs tags: the names of a job's fields are lower case.
	body := must(json.Marshal(map[string]any{
		"v": 1, "id": fmt.Sprintf("%x", random), "model": model, "task": "embed", "input": "Water waits.",
	}))
	must(0, channel.Confirm(false))
	confirm := must(channel.PublishWithDeferredConfirm("forebay.jobs", model, false, false,
		amqp.Publishing{Body: body, ReplyTo: "amq.rabbitmq.reply-to", DeliveryMode: amqp.Persistent}))
	if !confirm.Wait() {
		panic("RabbitMQ did not take the job")
	}
	var result struct {
		State  string
		Output struct{ Dim int }
		Error  struct{ Message string }
	}
	must(0, json.Unmarshal((<-replies).Body, &result))
	if result.State != "succeeded" {
		panic(result.Error.Message)
	}
	fmt.Printf("%s: %d numbers\n", result.State, result.Output.Dim)
}
