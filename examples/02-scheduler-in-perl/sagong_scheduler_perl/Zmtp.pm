package Zmtp;

# One ZeroMQ connection over a Unix socket: ZMTP 3.0 (https://rfc.zeromq.org/spec/23/), mechanism NULL.
# `received` takes what the socket has and gives back whole messages, each a list of frames.

use strict;
use warnings;

my $GREETING = "\xff" . "\0" x 8 . "\x7f" . "\3\0" . "NULL" . "\0" x 16 . "\0" . "\0" x 31;
my ($MORE, $LONG, $COMMAND) = (1, 2, 4);

sub new {
    my ($class, $socket, $type) = @_;
    $socket->blocking(0);
    my $ready = "\5READY" . _property('Socket-Type', $type) . _property('Identity', '');
    my $self = bless {
        socket => $socket, in => '', out => '', held => '', greeted => 0, ready => 0, frames => [],
    }, $class;
    $self->{out} = $GREETING . _frame($COMMAND, $ready);
    return $self;
}

sub _property {
    my ($name, $value) = @_;
    return pack 'C/a* N/a*', $name, $value;
}

sub _frame {
    my ($flags, $data) = @_;
    return pack('CC', $flags, length $data) . $data if length $data < 256;
    return pack('CQ>', $flags | $LONG, length $data) . $data;
}

sub socket { return $_[0]{socket} }
sub wants_write { return length $_[0]{out} }

# Queue a message; `flush` sends what the socket takes. Before the peer's READY no message may be sent.
sub send {
    my ($self, @frames) = @_;
    my $last = pop @frames;
    my $queue = $self->{ready} ? 'out' : 'held';
    $self->{$queue} .= _frame($MORE, $_) for @frames;
    $self->{$queue} .= _frame(0, $last);
    return $self->flush;
}

sub _begin {
    my ($self) = @_;
    $self->{ready} = 1;
    $self->{out} .= $self->{held};
    $self->{held} = '';
    $self->flush;
}

# False when the peer is gone.
sub flush {
    my ($self) = @_;
    while (length $self->{out}) {
        my $sent = syswrite $self->{socket}, $self->{out};
        if (!defined $sent) {
            return $!{EAGAIN} || $!{EINTR};
        }
        substr $self->{out}, 0, $sent, '';
    }
    return 1;
}

# Whole messages that have come; undef when the peer is gone.
sub received {
    my ($self) = @_;
    while (1) {
        my $count = sysread $self->{socket}, $self->{in}, 1 << 16, length $self->{in};
        if (!defined $count) {
            last if $!{EAGAIN} || $!{EINTR};
            return undef;
        }
        return undef if $count == 0;
    }
    return [$self->_messages];
}

sub _messages {
    my ($self) = @_;
    if (!$self->{greeted}) {
        return () if length $self->{in} < 64;
        substr $self->{in}, 0, 64, '';
        $self->{greeted} = 1;
    }
    my @messages;
    while (my $frame = $self->_next_frame) {
        my ($flags, $data) = @$frame;
        if ($flags & $COMMAND) {    # READY; no other command is sent to a peer that speaks 3.0
            $self->_begin if $data =~ /^\x05READY/;
            next;
        }
        push @{ $self->{frames} }, $data;
        if (!($flags & $MORE)) {
            push @messages, $self->{frames};
            $self->{frames} = [];
        }
    }
    return @messages;
}

sub _next_frame {
    my ($self) = @_;
    my $in = \$self->{in};
    return if length $$in < 2;
    my ($flags, $length) = unpack 'CC', $$in;
    my $head = 2;
    if ($flags & $LONG) {
        return if length $$in < 9;
        (undef, $length) = unpack 'CQ>', $$in;
        $head = 9;
    }
    return if length $$in < $head + $length;
    my $data = substr $$in, $head, $length;
    substr $$in, 0, $head + $length, '';
    return [$flags, $data];
}

1;
