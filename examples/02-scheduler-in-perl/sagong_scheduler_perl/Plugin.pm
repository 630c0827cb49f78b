package Plugin;

# A plugin's process on sagong's bus, written against docs/reference/wire.md: attends the kernel, follows its
# orders, and serves methods to those whom the kernel admits.
#
#     Plugin->new('scheduler/1/place' => sub { my ($request) = @_; ...; return \%answer })->run;
#
# A method that dies with [CODE, MESSAGE] is answered by that error, with anything else by `internal`.

use strict;
use warnings;
use Errno;
use IO::Poll qw(POLLIN POLLOUT POLLHUP POLLERR);
use IO::Socket::UNIX;
use JSON::PP ();
use Socket qw(SOL_SOCKET SOCK_STREAM);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);

use MessagePack qw(pack_value unpack_value);
use Zmtp;

my %KIND = (
    CALL => 1, REPLY => 2, ERROR => 3, CANCEL => 4, OPEN => 5, ITEM => 6,
    CREDIT => 7, END => 8, GOAWAY => 9, PING => 10, PONG => 11,
);
my $SO_PEERCRED = 17;
my $INLINE_LIMIT = 32 << 10;

sub new {
    my ($class, %methods) = @_;
    my $launch = JSON::PP::decode_json($ENV{SAGONG_LAUNCH} || die "start me by sagong\n");
    return bless {
        launch => $launch, methods => \%methods, access => {}, peers => {}, listener => undef,
        kernel => undef, next => 1, taken => 0, draining => 0, running => 1,
    }, $class;
}

sub run {
    my ($self) = @_;
    $SIG{PIPE} = 'IGNORE';
    $SIG{TERM} = sub { $self->{running} = 0 };
    while ($self->{running}) {
        $self->_attend if !$self->{kernel};
        $self->_turn;
    }
    unlink $self->{launch}{bus} if $self->{listener};
    return 0;
}

# -- the kernel: connect, ask for orders, follow them -------------------------------------------

sub _attend {
    my ($self) = @_;
    my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $self->{launch}{kernel});
    return if !$socket;    # it is being started anew: the next turn tries again
    $self->{kernel} = Zmtp->new($socket, 'DEALER');
    $self->{taken} = 0;
    my %attendance = (
        unit => $self->{launch}{unit}, generation => $self->{launch}{generation}, pid => $$ + 0,
    );
    $self->{attendance} = $self->{next};
    $self->_to_kernel($KIND{OPEN}, 'kernel/1/attend', \%attendance);
}

sub _to_kernel {
    my ($self, $kind, $method, $body, $id) = @_;
    return if !$self->{kernel};    # what it ordered is ordered again by its successor
    $id = $self->{next}++ if !defined $id;
    my $ok = $self->{kernel}->send(pack_value([[1, $kind, $id, $method, 0, 0, '', $body]]));
    $self->{kernel} = undef if !$ok;
}

sub _from_kernel {
    my ($self, $envelope) = @_;
    my (undef, $kind, $id, undef, undef, undef, undef, $body) = @$envelope;
    return if $id != $self->{attendance};
    if ($kind == $KIND{ERROR}) {
        print STDERR "the kernel refuses this process: $body->[1]\n";
        exit 3;
    }
    return if $kind != $KIND{ITEM};
    $self->_follow($body);
    if (++$self->{taken} >= 32 && $self->{kernel}) {
        $self->_to_kernel($KIND{CREDIT}, '', $self->{taken}, $id);
        $self->{taken} = 0;
    }
}

sub _follow {
    my ($self, $order) = @_;
    if ($order->{access}) {
        my %access = map { ($_->{uid} => { map { ($_ => 1) } @{ $_->{methods} } }) } @{ $order->{access} };
        $self->{access} = \%access;
    }
    my $action = $order->{action} or return;
    if ($action eq 'stop') {
        $self->{running} = 0;
        return;
    }
    my $error = '';
    if ($action eq 'start') {
        $error = eval { $self->_listen; '' } // "can't serve: $@";
    }
    elsif ($action eq 'drain') {
        $self->_drain;
    }
    elsif ($action ne 'purge' && $action ne 'health') {
        $error = "this program knows nothing of $action";
    }
    my %done = (
        unit => $self->{launch}{unit}, generation => $self->{launch}{generation},
        order => $order->{id}, error => $error,
    );
    $self->_to_kernel($KIND{CALL}, 'kernel/1/done', \%done);
}

# A call is answered within its turn, so none is in flight now; streams are sent to our successor.
sub _drain {
    my ($self) = @_;
    $self->{draining} = 1;
    for my $peer (values %{ $self->{peers} }) {
        my @ids = keys %{ $peer->{streams} } or next;
        $peer->{link}->send(_message(map { [1, $KIND{GOAWAY}, $_ + 0, '', 0, 0, '', undef] } @ids));
    }
}

# -- serving -------------------------------------------------------------------------------------

sub _listen {
    my ($self) = @_;
    return if $self->{listener};
    unlink $self->{launch}{bus};
    $self->{listener} = IO::Socket::UNIX->new(
        Type => SOCK_STREAM, Local => $self->{launch}{bus}, Listen => 128,
    ) or die "$self->{launch}{bus}: $!\n";
    chmod 0666, $self->{launch}{bus};
    $self->{listener}->blocking(0);
}

sub _accept {
    my ($self) = @_;
    while (my $socket = $self->{listener}->accept) {
        my (undef, $uid) = unpack 'lll', getsockopt $socket, SOL_SOCKET, $SO_PEERCRED;
        $self->{peers}{ fileno $socket } = { link => Zmtp->new($socket, 'ROUTER'), uid => $uid, streams => {} };
    }
}

sub _from_peer {
    my ($self, $peer, $frames) = @_;
    my @answers;
    my $envelopes = eval { unpack_value($frames->[0]) };
    if (ref $envelopes ne 'ARRAY') {
        @answers = ([1, $KIND{ERROR}, 0, '', 0, 0, '', ['invalid_argument', 'malformed message', {}]]);
    }
    else {
        @answers = map { $self->_answer($peer, $_, $frames) } @$envelopes;
    }
    return 1 if !@answers;
    return $peer->{link}->send(_message(@answers));
}

# Large bodies get frames of their own.
sub _message {
    my (@envelopes) = @_;
    my @extra;
    for my $envelope (@envelopes) {
        my $body = pack_value($envelope->[7]);
        next if length $body <= $INLINE_LIMIT;
        push @extra, $body;
        @$envelope[5, 7] = (1, scalar @extra);
    }
    return (pack_value(\@envelopes), @extra);
}

sub _answer {
    my ($self, $peer, $envelope, $frames) = @_;
    my ($version, $kind, $id, $method, $deadline, $flags, undef, $body) = @$envelope;
    my $reply = sub { return [1, $_[0], $id, '', 0, 0, '', $_[1]] };
    return $reply->($KIND{PONG}) if $kind == $KIND{PING};
    delete $peer->{streams}{$id} if $kind == $KIND{CANCEL};
    return if $kind != $KIND{CALL} && $kind != $KIND{OPEN};
    return $reply->($KIND{GOAWAY}) if $self->{draining};
    my $refusal = $self->_refusal($peer, $version, $method);
    return $reply->($KIND{ERROR}, $refusal) if $refusal;
    return if $deadline && clock_gettime(CLOCK_MONOTONIC) * 1e9 > $deadline;
    if ($method =~ m{/events$}) {    # nothing ever happens here, but a listener may wait for it
        $peer->{streams}{$id} = 1;
        return $reply->($KIND{ITEM}, { number => 0 });
    }
    $body = unpack_value($frames->[$body]) if $flags & 1;
    my $result = eval { $self->{methods}{$method}->($body) };
    return $reply->($KIND{REPLY}, $result) if !$@;
    return $reply->($KIND{ERROR}, ref $@ eq 'ARRAY' ? [@{$@}, {}] : ['internal', "$method: $@", {}]);
}

sub _refusal {
    my ($self, $peer, $version, $method) = @_;
    my ($slot) = $method =~ m{^(.*)/};
    my $known = $self->{methods}{$method} || ($method =~ m{/events$} && grep { m{^\Q$slot\E/} } keys %{ $self->{methods} });
    return ['unimplemented', "no method $method here", {}] if $version != 1 || !$known;
    my $granted = $self->{access}{ $peer->{uid} } || {};
    return if $peer->{uid} == 0 || $granted->{$method} || $granted->{"$slot/*"};
    return ['permission_denied', "uid $peer->{uid} may not call $method", {}];
}

# -- one turn of the loop ------------------------------------------------------------------------

sub _turn {
    my ($self) = @_;
    my $poll = IO::Poll->new;
    $poll->mask($self->{listener} => POLLIN) if $self->{listener};
    for my $link (grep { $_ } $self->{kernel}, map { $_->{link} } values %{ $self->{peers} }) {
        $poll->mask($link->socket => POLLIN | ($link->wants_write ? POLLOUT : 0));
    }
    if (!$poll->handles) {
        sleep 0.05;
        return;
    }
    return if $poll->poll($self->{kernel} ? 60 : 0.05) <= 0;
    my $ready = sub { return $poll->events($_[0]) & (POLLIN | POLLHUP | POLLERR | POLLOUT) };
    $self->_turn_kernel if $self->{kernel} && $ready->($self->{kernel}->socket);
    for my $number (keys %{ $self->{peers} }) {
        my $peer = $self->{peers}{$number};
        next if !$ready->($peer->{link}->socket);
        delete $self->{peers}{$number} if !$self->_turn_peer($peer);
    }
    $self->_accept if $self->{listener} && $ready->($self->{listener});
}

sub _turn_kernel {
    my ($self) = @_;
    my $link = $self->{kernel};
    my $messages = $link->flush ? $link->received : undef;
    if (!$messages) {
        $self->{kernel} = undef;    # it died: its successor knows us by our generation
        return;
    }
    for my $frames (@$messages) {
        $self->_from_kernel($_) for @{ unpack_value($frames->[0]) };
    }
}

sub _turn_peer {
    my ($self, $peer) = @_;
    return 0 if !$peer->{link}->flush;
    my $messages = $peer->{link}->received or return 0;
    for my $frames (@$messages) {
        return 0 if !$self->_from_peer($peer, $frames);
    }
    return 1;
}

1;
