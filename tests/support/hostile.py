"""Global variables of a MySQL or MariaDB that is set up against its clients."""

HOSTILE = {
    "sql_select_limit": 3,
    "max_join_size": 2,
    "wait_timeout": 1,
    "net_read_timeout": 1,
    "net_write_timeout": 1,
    "autocommit": 0,
    "sql_auto_is_null": 1,
    "sql_mode": "ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES",
    "div_precision_increment": 0,
    "default_week_format": 3,
    "lc_time_names": "de_DE",
    "group_concat_max_len": 4,
    "max_sort_length": 64,
    "init_connect": "SET sql_select_limit = 2, autocommit = 0, timestamp = 1000000, sql_big_selects = 0",
}
OF_MARIADB = {
    "system_versioning_asof": "2001-01-01 00:00:00",
    "tx_isolation": "SERIALIZABLE",
    "max_statement_time": 0.000001,
    "old_mode": "ZERO_DATE_TIME_CAST",
}
OF_MYSQL = {"transaction_isolation": "SERIALIZABLE", "max_execution_time": 1, "windowing_use_high_precision": 0}
