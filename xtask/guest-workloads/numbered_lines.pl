# Appends numbered lines to a file, each synced before its number is told on the connection of
# whoever asked: `go` begins after the last line, `end` unmounts and powers off.
use strict;
use IO::Handle;
use IO::Socket::INET;

my $path = '/numbers';
my $server = IO::Socket::INET->new(LocalPort => 7000, Listen => 5, ReuseAddr => 1) or die "listen: $!";
print STDERR "numbered lines: listening\n";
while (my $client = $server->accept) {
    $client->autoflush(1);
    my $word = <$client> // next;
    if ($word eq "list\n") {
        if (open(my $file, '<', $path)) { print $client $_ while <$file>; }
        print $client "whole\n";
    } elsif ($word eq "end\n") {
        system('sync');
        system('mount -o remount,ro /') == 0 or die 'the root is not remounted';
        print $client "whole\n";
        close $client;
        # The power-off of reboot(2), which no program is needed for.
        open(my $trigger, '>', '/proc/sysrq-trigger') or die "sysrq: $!";
        print $trigger 'o';
        close $trigger;
        sleep 1000;
    } else {
        my $last = 0;
        if (open(my $file, '<', $path)) { $last = $_ + 0 while <$file>; }
        open(my $file, '>>', $path) or die "open: $!";
        for (my $number = $last + 1; ; $number++) {
            # Enough that blocks are allocated as it goes on, and the journal is written.
            $file->print($number, ' ', 'x' x 200, "\n") && $file->flush && $file->sync or die "write: $!";
            print $client "$number\n" or last;
        }
    }
}
