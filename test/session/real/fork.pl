# Perl: a child writes through a pipe, grandchildren come and go and are waited for, a signal handler counts them.
use strict;
use POSIX ':sys_wait_h';
$| = 1;
my $ended = 0;
$SIG{CHLD} = sub { while (waitpid(-1, WNOHANG) > 0) { $ended++ } };
pipe(my $read, my $write) or die;
if (!fork) {
  $SIG{CHLD} = 'DEFAULT';
  select $write;
  $| = 1;
  for (my $n = 1; ; $n++) { print "line $n\n"; select(undef, undef, undef, 0.02) }
}
close $write;
my ($n, $started) = (0, 0);
sub line {
  for (;;) {
    my $got = <$read>;
    return $got if defined $got;
    next if $!{EINTR};
    print "WRONG end\n";
    exit 3;
  }
}
while (my $line = line()) {
  $n++;
  if ($line ne "line $n\n" || $ended > $started) { print "WRONG $line"; exit 3 }
  if ($n % 4 == 0) { $started++; exit 0 unless fork }
  print "round $n\n";
}
