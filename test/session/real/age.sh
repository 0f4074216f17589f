# Go: two age processes (goroutines, a runtime with timers and signals of its own) between two of perl.
age-keygen -o "$F/key" 2>/dev/null
perl -e '$| = 1; for ($n = 1; ; $n++) { print "$n ", "payload-$n " x 300, "\n" }' |
  age -r "$(age-keygen -y "$F/key")" |
  age -d -i "$F/key" |
  perl -e '$| = 1; while (<STDIN>) {
    $n++;
    if ($_ ne "$n " . "payload-$n " x 300 . "\n") { print "WRONG line $n\n"; exit 3 }
    if ($n % 20 == 0) { printf "round %d\n", $n / 20; select(undef, undef, undef, 0.02) }
  }'
