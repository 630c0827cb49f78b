# Speaks the protocol of testcontainers' reaper (ryuk): on port 8080 clients send lines of filters
# (label=KEY=VALUE&...), each answered ACK. Once no client is there any more for as long as
# RYUK_RECONNECTION_TIMEOUT says, everything that a filter fits is removed through docker.sock.
use strict; use warnings; use IO::Socket::INET; use IO::Socket::UNIX; use IO::Select;
$| = 1;
open my $name, "<", "/etc/hostname" or die "hostname: $!";
chomp(my $self = <$name>);
my ($patience) = (($ENV{RYUK_RECONNECTION_TIMEOUT} || "10") =~ /^(\d+)/);

sub ask {
    my ($method, $path) = @_;
    my $s = IO::Socket::UNIX->new("/var/run/docker.sock") or die "docker.sock: $!";
    print $s "$method /v1.44$path HTTP/1.0\r\nHost: docker\r\n\r\n";
    my ($head, $body) = split /\r\n\r\n/, join("", <$s>), 2;
    print "$method $path: ", (split /\r\n/, $head)[0], "\n";
    return $body // "";
}
sub encoded { my $t = shift; $t =~ s/([^A-Za-z0-9])/sprintf "%%%02X", ord $1/ge; return $t }
sub reap {
    my %of;
    for (split /&/, shift) { my ($k, $v) = split /=/, $_, 2; push @{$of{$k}}, "\"$v\"" }
    my $f = encoded("{" . join(",", map { "\"$_\":[" . join(",", @{$of{$_}}) . "]" } keys %of) . "}");
    my $containers = ask("GET", "/containers/json?all=1&filters=$f");
    for ($containers =~ /"Id":"([0-9a-f]{64})"/g) {
        ask("DELETE", "/containers/$_?v=1&force=1") unless /^$self/;  # some clients label the reaper, too
    }
    ask("DELETE", "/networks/$_") for ask("GET", "/networks?filters=$f") =~ /"Id":"([0-9a-f]{64})"/g;
    ask("DELETE", "/volumes/$_?force=1") for ask("GET", "/volumes?filters=$f") =~ /"Name":"([^"]+)"/g;
    ask("DELETE", "/images/$_") for ask("GET", "/images/json?filters=$f") =~ /"Id":"(sha256:[0-9a-f]+)"/g;
}

my $door = IO::Socket::INET->new(LocalPort => 8080, Listen => 9, ReuseAddr => 1) or die "8080: $!";
my $all = IO::Select->new($door);
my (%filters, %rest);
print "msg=Started address=[::]:8080\n";
my $last = time + 60;
while ($all->count > 1 || time < $last) {
    for my $s ($all->can_read(0.2)) {
        if ($s == $door) { $all->add(scalar $door->accept); next }
        if (!sysread $s, my $piece, 4096) { $all->remove($s); close $s; $last = time + $patience; next }
        else { $rest{$s} .= $piece }
        while ($rest{$s} =~ s/^([^\n]*?)\r?\n//) { $filters{$1} = 1 if $1; syswrite $s, "ACK\n" }
    }
}
reap($_) for sort keys %filters;
print "msg=done\n";
