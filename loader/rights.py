"""What the loader's account in Redis has to be allowed: the lab grants it, and `doctor` asks for it."""

# All that the loader's account may do in Redis; README tells people the same.
REDIS_RIGHTS = (
    "+hmset +hset +hget +hdel +hgetall +hlen +hscan +expire +pexpire +ttl +pttl +exists +type +unlink +del +get +set"
    " +eval +scan +randomkey +dbsize +wait +asking +cluster|slots +cluster|info +info +time +ping +select"
    " +client|id +client|setname +client|kill +client|list +lpush +ltrim +lrange"
)
