# Publishes a job with Bunny in msgpack and reads its result from Redis. Bunny's content type by default is
# application/octet-stream, which says nothing: the body's first byte decides.
require "bunny"
require "msgpack"
require "redis"
require "securerandom"

job = { v: 1, id: SecureRandom.uuid, model: "all-minilm-l6-v2", task: "embed", input: "Water waits behind the gate." }
connection = Bunny.new(ENV.fetch("FOREBAY_AMQP_URL")).start
channel = connection.create_channel
channel.confirm_select
channel.basic_publish(job.to_msgpack, "forebay.jobs", job[:model], persistent: true)
channel.wait_for_confirms or abort "RabbitMQ did not take the job"
connection.close

redis = Redis.new(url: ENV.fetch("FOREBAY_REDIS_URL"))
deadline = Time.now + 60
until (body = redis.get("forebay:result:#{job[:id]}"))
  abort "no result within 60 s" if Time.now > deadline
  sleep 0.02
end
result = MessagePack.unpack(body)
abort result["error"]["message"] unless result["state"] == "succeeded"
puts "#{result["state"]}: #{result["output"]["data"].unpack("e*").length} numbers"
