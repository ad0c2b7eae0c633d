"""Which statements may write, as their text says."""

import pytest

from loader.mysql.write_statements import may_write

READS = [
    "SELECT * FROM t",
    "select count(*), max(t.a), `t`.`b` from t where a in (1, 2) and exists (select 1 from u)",
    "/* nightly */ -- a report\nSELECT /*+ MAX_EXECUTION_TIME(9) */ SUM(IF(a > 1, 1, 0)) FROM t",
    "SELECT /*!40001 SQL_NO_CACHE */ * FROM `t`",
    "(SELECT 1) UNION ALL (SELECT SLEEP(18))",
    "((SELECT a FROM t) LIMIT 1)",
    "WITH q AS (SELECT 1) SELECT * FROM q",
    "SELECT 'INSERT INTO t (f(1))', \"into\" FROM t",
    "SELECT * FROM t INTO OUTFILE '/tmp/t'",
    "SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b), CAST(a AS DECIMAL(10, 2)) FROM t USE INDEX (a)",
    "TABLE t",
    "VALUES ROW(1, 2)",
    "SHOW TABLES",
    "EXPLAIN DELETE FROM t",
    "DESC t",
    "EXPLAIN ANALYZE SELECT * FROM t",
    "ANALYZE FORMAT=JSON SELECT * FROM t",
    "SET STATEMENT max_statement_time = 9 FOR SELECT * FROM t",
]
WRITES = [
    "INSERT INTO t SELECT 1",
    "insert into t values (1)",
    "REPLACE t VALUES (1)",
    "/* SELECT */ -- SELECT\n# SELECT\nUPDATE t SET a = 1",
    "DELETE FROM t",
    "WITH q AS (SELECT 1) UPDATE t JOIN q SET a = 1",
    "WITH q AS (SELECT 1) DELETE t FROM t JOIN q",
    "LOAD DATA LOCAL INFILE 't' INTO TABLE t",
    "CREATE TABLE u SELECT * FROM t",
    "CREATE OR REPLACE TABLE u AS SELECT * FROM t",
    "ALTER TABLE t ADD COLUMN a timestamp DEFAULT now()",
    "CALL p()",
    "EXECUTE s",
    "EXECUTE IMMEDIATE 'INSERT INTO t VALUES (1)'",
    "BEGIN NOT ATOMIC INSERT INTO t VALUES (1); END",
    "DO f()",
    "SET @a = f()",
    "SELECT SLEEP(3) INTO @a",
    "SELECT f(1)",
    "SELECT `f`(1)",
    "SELECT db.count(1)",
    "SELECT db . `f` (1)",
    "SELECT * FROM t WHERE a IN (SELECT f())",
    "(SELECT f())",
    "WITH q AS (SELECT f()) SELECT * FROM q",
    "VALUES ROW(f())",
    "/*!50000 INSERT INTO t VALUES (1) */",
    "/*M!100100 INSERT INTO t */ SELECT 1",
    "/*!99999 SELECT 1 FROM */ INSERT INTO t VALUES (1)",
    "SELECT 1 /*!50000 + f() */",
    "EXPLAIN ANALYZE UPDATE t JOIN u SET a = 1",
    "ANALYZE FORMAT=JSON INSERT INTO t VALUES (1)",
    "SET STATEMENT max_statement_time = 9 FOR INSERT INTO t VALUES (1)",
    "BINLOG 'AAAA'",
    "COMMIT",
    "SELECT 'never closed, f(",
    "SELECT 1 /* never closed",
    "",
]


@pytest.mark.parametrize("sql", READS)
def test_what_surely_reads(sql):
    """Comments, hints, parentheses and MySQL's own functions aside."""
    assert not may_write(sql)


@pytest.mark.parametrize("sql", WRITES)
def test_all_else_may_write(sql):
    """Also by a function of one's own, in a comment that is executed, or where the text is cut off."""
    assert may_write(sql)
