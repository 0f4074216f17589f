# Ruby: a thread that makes work, one that does it, and a fiber that counts it.
$stdout.sync = true
queue = Queue.new
Thread.abort_on_exception = true
Thread.new do
  n = 0
  loop { queue << [n += 1, "work #{n} " * 50]; sleep 0.001 }
end
counter = Fiber.new { i = 0; loop { Fiber.yield(i += 1) } }
loop do
  n, text = queue.pop
  counted = counter.resume
  (puts "WRONG #{n} #{counted}"; exit! 3) unless n == counted && text == "work #{counted} " * 50
  puts "round #{n / 20}" if n % 20 == 0
end
