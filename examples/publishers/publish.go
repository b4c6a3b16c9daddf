// Publishes a job with amqp091-go and takes the answer by RabbitMQ's direct reply-to.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	const model = "all-minilm-l6-v2"
	channel := must(must(amqp.Dial(os.Getenv("FOREBAY_AMQP_URL"))).Channel())
	replies := must(channel.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil))
	// A struct needs tags: the names of a job's fields are lower case.
	job := map[string]any{"v": 1, "id": uuid.NewString(), "model": model, "task": "embed", "input": "Water waits."}
	message := amqp.Publishing{
		Body: must(json.Marshal(job)), ReplyTo: "amq.rabbitmq.reply-to", DeliveryMode: amqp.Persistent,
	}
	must(0, channel.Confirm(false))
	if !must(channel.PublishWithDeferredConfirm("forebay.jobs", model, false, false, message)).Wait() {
		log.Fatal("RabbitMQ did not take the job")
	}
	var result map[string]any
	if must(0, json.Unmarshal((<-replies).Body, &result)); result["state"] != "succeeded" {
		log.Fatal(result["error"])
	}
	fmt.Printf("succeeded: %v numbers\n", result["output"].(map[string]any)["dim"])
}
