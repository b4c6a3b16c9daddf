<?php
// Publishes a job with php-amqplib, without any properties but its durability, and reads its result from Redis.
require 'PhpAmqpLib/autoload.php'; // Debian's; Composer's is vendor/autoload.php

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Message\AMQPMessage;

$model = 'all-minilm-l6-v2';
$job = [
    'v' => 1, 'id' => bin2hex(random_bytes(16)), 'model' => $model, 'task' => 'embed',
    'input' => 'Water waits behind the gate.', 'params' => [], 'submitted_at_ms' => round(microtime(true) * 1000),
];
$amqp = parse_url(getenv('FOREBAY_AMQP_URL'));
$vhost = urldecode(substr($amqp['path'] ?? '', 1)) ?: '/';
$connection = new AMQPStreamConnection($amqp['host'], $amqp['port'], $amqp['user'], $amqp['pass'], $vhost);
$channel = $connection->channel();
$channel->confirm_select();
$channel->set_nack_handler(fn () => throw new RuntimeException('RabbitMQ did not take the job'));
$channel->basic_publish(new AMQPMessage(json_encode($job), ['delivery_mode' => 2]), 'forebay.jobs', $model);
$channel->wait_for_pending_acks(10);
$connection->close();

$url = parse_url(getenv('FOREBAY_REDIS_URL'));
$redis = new Redis();
$redis->connect($url['host'], $url['port']);
if (isset($url['pass'])) $redis->auth($url['pass']);
$deadline = time() + 60;
while (($body = $redis->get("forebay:result:{$job['id']}")) === false) {
    if (time() > $deadline) throw new RuntimeException('no result within 60 s');
    usleep(20_000);
}
$result = json_decode($body, true);
if ($result['state'] !== 'succeeded') throw new RuntimeException($result['error']['message']);
echo "{$result['state']}: {$result['output']['dim']} numbers\n";
