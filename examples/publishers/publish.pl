# Publishes a job with AnyEvent::RabbitMQ and reads its result from Redis.
use v5.36;
use AnyEvent::RabbitMQ;
use Data::UUID;
use JSON::PP;
use Redis;

my $model = 'all-minilm-l6-v2';
my $id = Data::UUID->new->create_str;
my $job = { v => 1, id => $id, model => $model, task => 'embed', input => 'Water waits behind the gate.' };
my ($user, $pass, $host, $port, $vhost) = $ENV{FOREBAY_AMQP_URL} =~ m{^amqp://(.+?):(.+?)@(.+?):(\d+)/?(.*)$};
$vhost = $vhost eq '' ? '/' : $vhost =~ s/%(..)/chr hex $1/egr;

my $done = AnyEvent->condvar;
my $fail = sub { $done->croak('RabbitMQ did not take the job') };
my $publish = sub {
    my $channel = shift;
    my %message = (exchange => 'forebay.jobs', routing_key => $model, body => encode_json($job));
    $channel->confirm(on_failure => $fail, on_success => sub {
        $channel->publish(%message, header => { delivery_mode => 2 }, on_ack => sub { $done->send }, on_nack => $fail);
    });
};
my $rabbit = AnyEvent::RabbitMQ->new->load_xml_spec->connect(
    host => $host, port => $port, user => $user, pass => $pass, vhost => $vhost, timeout => 10,
    on_success => sub { $_[0]->open_channel(on_success => $publish, on_failure => $fail, on_close => sub { }) },
    on_failure => $fail, on_read_failure => $fail, on_close => sub { },
);
$done->recv;

my ($password, $server) = $ENV{FOREBAY_REDIS_URL} =~ m{^redis://(?:.*?:(.+?)@)?([^/]+)};
my $redis = Redis->new(server => $server, $password ? (password => $password) : ());
my ($body, $deadline) = (undef, time + 60);
until (defined($body = $redis->get("forebay:result:$id"))) {
    die 'no result within 60 s' if time > $deadline;
    select undef, undef, undef, 0.02;
}
my $result = decode_json($body);
die $result->{error}{message} if $result->{state} ne 'succeeded';
say "$result->{state}: $result->{output}{dim} numbers";
