-- Append records to the audit stream, in order.
-- KEYS: the stream. ARGV: how many records it keeps, roughly; then the records.
for number = 2, #ARGV do
  redis.call("XADD", KEYS[1], "MAXLEN", "~", ARGV[1], "*", "record", ARGV[number])
end
return #ARGV - 1
