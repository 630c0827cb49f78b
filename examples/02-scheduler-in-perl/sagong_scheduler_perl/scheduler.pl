#!/usr/bin/perl
# A scheduler in Perl: a pod goes to the ready node that has most room left among those that can take it.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP ();

use Plugin;

exit Plugin->new('scheduler/1/place' => \&place)->run;

sub place {
    my ($question) = @_;
    my @nodes = map { room_of($_) } map { object($_) } @{ $question->{nodes} || [] };
    my %by_name = map { ($_->{name} => $_) } @nodes;
    for my $pod (map { object($_) } @{ $question->{bound} || [] }) {
        my $node = $by_name{ $pod->{spec}{nodeName} // '' };
        take($node, needs_of($pod)) if $node;
    }
    return { placements => [map { placement(object($_), \@nodes) } @{ $question->{pods} || [] }] };
}

sub placement {
    my ($pod, $nodes) = @_;
    my $needs = needs_of($pod);
    my @fitting = grep { fits($_, $pod, $needs) } @$nodes;
    my ($best) = sort { left($b, $needs) <=> left($a, $needs) || $a->{name} cmp $b->{name} } @fitting;
    my %place = (namespace => $pod->{metadata}{namespace} // '', name => $pod->{metadata}{name});
    if ($best) {
        take($best, $needs);
        return { %place, node => $best->{name} };
    }
    my $all = @$nodes;
    return { %place, reasons => ["0/$all nodes are available"] };
}

sub fits {
    my ($node, $pod, $needs) = @_;
    return 0 if $node->{closed};
    return 0 if grep { $needs->{$_} > ($node->{free}{$_} // 0) } keys %$needs;
    my $wanted = $pod->{spec}{nodeSelector} || {};
    return !grep { ($node->{labels}{$_} // "\0") ne $wanted->{$_} } keys %$wanted;
}

sub take {
    my ($node, $needs) = @_;
    $node->{free}{$_} = ($node->{free}{$_} // 0) - $needs->{$_} for keys %$needs;
}

# The smallest share that stays free.
sub left {
    my ($node, $needs) = @_;
    my @shares = map { ($node->{free}{$_} - $needs->{$_}) / ($node->{all}{$_} || 1) } qw(cpu memory);
    return $shares[0] < $shares[1] ? $shares[0] : $shares[1];
}

sub room_of {
    my ($node) = @_;
    my $given = $node->{status}{allocatable} || {};
    my %all = (pods => 110, cpu => 0, memory => 0, map { ($_ => amount($given->{$_})) } keys %$given);
    return {
        name => $node->{metadata}{name}, labels => $node->{metadata}{labels} || {},
        closed => $node->{spec}{unschedulable}, all => \%all, free => {%all},
    };
}

sub needs_of {
    my ($pod) = @_;
    my %needs = (pods => 1, cpu => 0, memory => 0);
    for my $container (@{ $pod->{spec}{containers} || [] }) {
        my $asked = $container->{resources}{requests} || {};
        $needs{$_} = ($needs{$_} // 0) + amount($asked->{$_}) for keys %$asked;
    }
    return \%needs;
}

# A Kubernetes quantity as a number: 500m, 2, 1.5Gi, 1e3.
sub amount {
    my ($text) = @_;
    my ($number, $suffix) = $text =~ /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(.*)$/
        or die ['invalid_argument', "$text is no quantity"];
    my %factor = (
        '' => 1, n => 1e-9, u => 1e-6, m => 1e-3, k => 1e3, M => 1e6, G => 1e9, T => 1e12, P => 1e15, E => 1e18,
        Ki => 2**10, Mi => 2**20, Gi => 2**30, Ti => 2**40, Pi => 2**50, Ei => 2**60,
    );
    return $number * ($factor{$suffix} // die ['invalid_argument', "$text is no quantity"]);
}

sub object {
    my ($json) = @_;
    return eval { JSON::PP::decode_json($json) } // die ['invalid_argument', 'an object is not JSON'];
}
