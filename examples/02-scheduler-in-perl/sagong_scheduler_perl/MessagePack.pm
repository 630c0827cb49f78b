package MessagePack;

# MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md), as much as the wire needs.
# Text and bytes: strings that carry Perl's UTF-8 flag or are plain ASCII are packed as str; a reference to a
# string is packed as bin. Unpacked, str becomes decoded text and bin a string of bytes.

use strict;
use warnings;
use Encode ();
use Exporter 'import';
our @EXPORT_OK = qw(pack_value unpack_value $TRUE $FALSE);
our ($TRUE, $FALSE) = (\"\xc3", \"\xc2");

sub pack_value {
    my ($value) = @_;
    return "\xc0" if !defined $value;
    return $$value if ref $value eq 'SCALAR' && ($value == $TRUE || $value == $FALSE);
    return _sized(length $$value, [0xc4, 0xc5, 0xc6]) . $$value if ref $value eq 'SCALAR';
    if (ref $value eq 'ARRAY') {
        my $head = @$value < 16 ? chr(0x90 | @$value) : pack('Cn', 0xdc, scalar @$value);
        return join '', $head, map { pack_value($_) } @$value;
    }
    if (ref $value eq 'HASH') {
        my $head = keys %$value < 16 ? chr(0x80 | keys %$value) : pack('Cn', 0xde, scalar keys %$value);
        return join '', $head, map { (_text($_), pack_value($value->{$_})) } sort keys %$value;
    }
    return _number($value) if $value =~ /^-?\d+$/ && !_is_text($value);
    return _text($value);
}

# A number that came from arithmetic or a literal has no string in it.
sub _is_text {
    my ($value) = @_;
    require B;
    my $flags = B::svref_2object(\$value)->FLAGS;
    return $flags & B::SVf_POK() && !($flags & (B::SVf_IOK() | B::SVf_NOK()));
}

sub _number {
    my ($value) = @_;
    return chr $value if $value >= 0 && $value < 128;
    return pack 'Cq>', 0xd3, $value if $value < 0;
    return pack 'CQ>', 0xcf, $value;
}

sub _text {
    my $bytes = Encode::encode_utf8($_[0]);
    my $length = length $bytes;
    return chr(0xa0 | $length) . $bytes if $length < 32;
    return _sized($length, [0xd9, 0xda, 0xdb]) . $bytes;
}

sub _sized {
    my ($length, $codes) = @_;
    return pack 'CC', $codes->[0], $length if $length < 1 << 8;
    return pack 'Cn', $codes->[1], $length if $length < 1 << 16;
    return pack 'CN', $codes->[2], $length;
}

# The value at the beginning of a string of bytes; dies at what is cut short.
sub unpack_value {
    my ($bytes) = @_;
    my $at = 0;
    my $value = _read(\$bytes, \$at);
    return $value;
}

my %SIZED = (    # code => [template of the length, its bytes, kind]
    0xc4 => ['C', 1, 'bin'], 0xc5 => ['n', 2, 'bin'], 0xc6 => ['N', 4, 'bin'],
    0xd9 => ['C', 1, 'str'], 0xda => ['n', 2, 'str'], 0xdb => ['N', 4, 'str'],
    0xdc => ['n', 2, 'array'], 0xdd => ['N', 4, 'array'],
    0xde => ['n', 2, 'map'], 0xdf => ['N', 4, 'map'],
);
my %FIXED = (
    0xca => ['f>', 4], 0xcb => ['d>', 8],
    0xcc => ['C', 1], 0xcd => ['n', 2], 0xce => ['N', 4], 0xcf => ['Q>', 8],
    0xd0 => ['c', 1], 0xd1 => ['s>', 2], 0xd2 => ['l>', 4], 0xd3 => ['q>', 8],
);

sub _take {
    my ($bytes, $at, $count) = @_;
    die "MessagePack: cut short\n" if $$at + $count > length $$bytes;
    $$at += $count;
    return substr $$bytes, $$at - $count, $count;
}

sub _read {
    my ($bytes, $at) = @_;
    my $code = ord _take($bytes, $at, 1);
    return $code if $code < 0x80;
    return $code - 256 if $code >= 0xe0;
    return _collect($bytes, $at, 'map', $code & 15) if $code < 0x90;
    return _collect($bytes, $at, 'array', $code & 15) if $code < 0xa0;
    return _collect($bytes, $at, 'str', $code & 31) if $code < 0xc0;
    return undef if $code == 0xc0;
    return $code == 0xc3 ? 1 : 0 if $code == 0xc2 || $code == 0xc3;
    if (my $fixed = $FIXED{$code}) {
        return unpack $fixed->[0], _take($bytes, $at, $fixed->[1]);
    }
    my $sized = $SIZED{$code} or die sprintf "MessagePack: code %02x is not spoken here\n", $code;
    my $count = unpack $sized->[0], _take($bytes, $at, $sized->[1]);
    return _collect($bytes, $at, $sized->[2], $count);
}

sub _collect {
    my ($bytes, $at, $kind, $count) = @_;
    return _take($bytes, $at, $count) if $kind eq 'bin';
    return Encode::decode_utf8(_take($bytes, $at, $count)) if $kind eq 'str';
    return [map { _read($bytes, $at) } 1 .. $count] if $kind eq 'array';
    my %map;
    for (1 .. $count) {
        my $key = _read($bytes, $at);
        $map{$key} = _read($bytes, $at);
    }
    return \%map;
}

1;
