#!/usr/bin/env perl
# Capture the flag, written from docs/rules-protocol.md alone, without a helper. The same rules as flag.py and flag.mjs.
#
#     rules = { process = ["perl", "examples/rules/flag.pl"] }

use strict;
use warnings;
use IO::Socket::UNIX;
use JSON::PP;

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $path = $ENV{LASTHIT_RULES} or die "LASTHIT_RULES is not set: let a worker start this program\n";
my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path) or die "$path: $!\n";
binmode $socket;

sub send_message {
    my $body = $json->encode(shift);
    my $frame = pack('N', length $body) . $body;
    while (length $frame) {
        my $written = syswrite($socket, $frame) or exit 1;
        substr($frame, 0, $written, '');
    }
}

sub receive {
    my $bytes = shift;
    my $all = '';
    while (length $all < $bytes) {
        # The worker has closed the socket: this program is not needed any more.
        my $read = sysread($socket, $all, $bytes - length $all, length $all) or exit 0;
    }
    return $all;
}

sub rotl { my ($x, $by) = @_; return (($x << $by) | ($x >> (32 - $by))) & 0xffffffff }

# A number from 0 up to 1 from an event's seed: sfc32.
sub random {
    my ($a, $b, $c, $d) = @{ shift->{seed} };
    my @drawn;
    for (1 .. 2) {
        my $t = ($a + $b + $d) & 0xffffffff;
        $d = ($d + 1) & 0xffffffff;
        $a = $b ^ ($b >> 9);
        $b = ($c + ($c << 3)) & 0xffffffff;
        $c = (rotl($c, 21) + $t) & 0xffffffff;
        push @drawn, $t;
    }
    return (($drawn[0] >> 5) * 67108864 + ($drawn[1] >> 6)) / 9007199254740992;
}

my %on = (
    grab => sub {
        my ($state, $event) = @_;
        return { outcome => 'late', contest => 'flag' } if defined $state->{holder};
        $state->{holder} = $event->{player};
        $state->{grabs} += 1;
        my $after = $event->{args} ? $event->{args}{ms} : 30_000;
        my $timer = { name => 'free', after => $after, data => { from => $event->{player} } };
        return { outcome => 'won', contest => 'flag', body => { grabs => $state->{grabs} }, timers => [$timer] };
    },
    drop => sub {
        my ($state, $event) = @_;
        return { outcome => 'denied', reason => 'not_yours' } if ($state->{holder} // '') ne $event->{player};
        $state->{holder} = undef;
        my $cancel = { name => 'free', cancel => JSON::PP::true };
        return { outcome => 'granted', contest => 'flag', next_round => JSON::PP::true, timers => [$cancel] };
    },
    tell => sub {
        my ($state, $event) = @_;
        return { outcome => 'granted', to => $event->{args}{to}, body => { text => $event->{args}{text} } };
    },
    who => sub {
        my ($state, $event) = @_;
        my %body = map { $_ => $event->{$_} } qw(player role sessions);
        return { outcome => 'granted', to => 'sender', body => \%body };
    },
    roll => sub {
        my ($state, $event) = @_;
        return { outcome => 'granted', body => { roll => int(random($event) * 6) + 1 } };
    },
    cheat => sub {
        my ($state, $event) = @_;
        $state->{holder} = $event->{player};
        die "nobody cheats here\n";
    },
);

sub decide {
    my ($state, $event) = @_;
    my $kind = $event->{event};
    if ($kind eq 'data') {
        my $handler = $on{ $event->{op} } or return { outcome => 'denied', reason => 'unknown_op' };
        return $handler->($state, $event);
    }
    return { outcome => 'granted', body => $state } if $kind eq 'open';
    if ($kind eq 'timer') {
        $state->{holder} = undef;
        my %body = (free => JSON::PP::true, from => $event->{data}{from});
        return { outcome => 'granted', contest => 'flag', next_round => JSON::PP::true, body => \%body };
    }
    return { outcome => 'granted' };
}

sub resolve {
    my $message = shift;
    my $stored = $json->encode($message->{state} // { holder => undef, grabs => 0 });
    my @decisions;
    for my $event (@{ $message->{events} }) {
        # Every event begins with what is stored.
        my $state = $json->decode($stored);
        my $decision = eval { decide($state, $event) };
        if (!defined $decision) {
            chomp(my $error = $@);
            push @decisions, { outcome => 'failed', error => $error };
            next;
        }
        $decision->{contest} //= $event->{contest} if defined $event->{contest};
        my $after = $json->encode($state);
        $decision->{state} = $state if $after ne $stored;
        $stored = $after;
        push @decisions, $decision;
    }
    return { type => 'resolved', id => $message->{id}, decisions => \@decisions };
}

send_message({ type => 'hello', protocol => 1, name => 'flag', version => 1 });
while (1) {
    my $message = $json->decode(receive(unpack 'N', receive(4)));
    if    ($message->{type} eq 'resolve') { send_message(resolve($message)) }
    elsif ($message->{type} eq 'migrate') { send_message({ type => 'migrated', id => $message->{id}, state => $message->{state} }) }
    elsif ($message->{type} eq 'ping')    { send_message({ type => 'pong', id => $message->{id} }) }
    elsif ($message->{type} eq 'refused') { die "$message->{error}\n" }
}
