"""Which queries can be followed: rows of the table that are not of a key must not change what is read for it."""

import pytest

from loader.mysql.outer_query import grouped_by, why_unfit

FIT = [
    "SELECT sid FROM stu",
    "select `s`.sid as id from `stu` as s left join marks m on m.sid = s.sid where s.note <> 'limit 5 from stu'",
    "SELECT sid FROM (stu LEFT JOIN marks USING (sid)) -- FROM stu LIMIT 4",
    "SELECT STU.sid, stu.`limit`, stu.over FROM test.stu, other WHERE stu.sid = other.sid ORDER BY stu.name",
    "SELECT s.sid, (SELECT mark FROM marks m WHERE m.sid = s.sid ORDER BY at LIMIT 1) AS best FROM stu s",
    "WITH m AS (SELECT sid, RANK() OVER (ORDER BY n) AS r FROM marks LIMIT 10) SELECT stu.sid, r FROM stu JOIN m",
    "SELECT s.sid, COUNT(*) FROM stu s GROUP BY s.sid HAVING COUNT(*) > 1",
    "SELECT s.sid, n FROM stu s JOIN (SELECT sid, COUNT(*) AS n FROM marks GROUP BY sid) m ON m.sid = s.sid",
    "SELECT stu.sid FROM other.stu AS o STRAIGHT_JOIN stu",
]
UNFIT = [
    ("SELECT sid FROM marks", "outermost"),
    ("SELECT sid FROM other.stu", "outermost"),
    ("(SELECT sid FROM stu)", "outermost"),
    ("WITH s AS (SELECT * FROM stu) SELECT a.sid FROM s a JOIN s b", "outermost"),
    ("WITH m AS (SELECT 1), `stu` AS (SELECT sid FROM marks) SELECT sid FROM stu", "its WITH"),
    ("WITH RECURSIVE stu (sid) AS (SELECT 1 UNION SELECT sid + 1 FROM stu) SELECT sid FROM stu", "its WITH"),
    ("SELECT a.sid FROM stu a, stu b", "2 times"),
    ("SELECT a.sid FROM stu a JOIN (marks m JOIN stu b)", "2 times"),
    ("SELECT sid FROM stu WHERE sid IN (SELECT MAX(sid) FROM test.stu GROUP BY class)", "2 times"),
    ("SELECT sid FROM stu LIMIT 5", "LIMIT"),
    ("SELECT sid FROM stu FETCH FIRST 5 ROWS ONLY", "FETCH"),
    ("SELECT sid, COALESCE(LAG(sid) OVER (ORDER BY sid), 0) FROM stu", "a window function"),
    ("SELECT sid, SUM(n) OVER w FROM stu WINDOW w AS (ORDER BY sid)", "a window function"),
    ("SELECT sid FROM stu UNION ALL SELECT sid FROM marks", "UNION"),
    ("SELECT sid FROM stu EXCEPT SELECT sid FROM marks", "EXCEPT"),
    ("SELECT sid, @n := @n + 1 AS n FROM stu", "variables"),
    ("SELECT sid, IFNULL(COUNT(*), 0) FROM stu", "GROUP BY"),
]


@pytest.mark.parametrize("query", FIT)
def test_fit(query):
    """What is read of other tables, in texts and comments does not matter."""
    assert why_unfit(query, "stu", "test") == ""


@pytest.mark.parametrize(("query", "words"), UNFIT)
def test_unfit(query, words):
    """Rows that depend on other rows of the table cannot be followed."""
    assert words in why_unfit(query, "stu", "test")


@pytest.mark.parametrize(
    ("clause", "columns"),
    [
        ("", None),
        ("GROUP BY sid", {"sid"}),
        ("GROUP BY 1, `s`.`class` HAVING x > (SELECT 1)", {"sid", "class"}),
        ("GROUP BY S.Class, m.sid, LEFT(name, 2), 3, 9 WITH ROLLUP", {"class"}),
        ("GROUP BY name ORDER BY class", {"name"}),
        ("WHERE sid IN (SELECT sid FROM marks GROUP BY sid)", None),
    ],
)
def test_groups(clause, columns):
    """The table's own columns by which rows are grouped, whether by name or by place."""
    query = f"SELECT s.sid, s.name, m.n FROM stu s JOIN marks m {clause}"
    assert grouped_by(query, "s", ["sid", "name", ""], ["sid", "name", "class"]) == columns
