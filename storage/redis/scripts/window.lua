-- KEYS: meta  ARGV: format
return {meta[3], meta[2]}
