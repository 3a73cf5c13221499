// At work for ever.
for (;;) Math.random()
