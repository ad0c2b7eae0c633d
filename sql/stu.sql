SET NAMES utf8mb4;

CREATE TABLE IF NOT EXISTS stu (
  sid smallint(8) unsigned zerofill NOT NULL AUTO_INCREMENT COMMENT 'sid',
  sname varchar(20) NOT NULL DEFAULT '' COMMENT 'sname',
  address varchar(20) NOT NULL DEFAULT '' COMMENT 'address',
  PRIMARY KEY (sid)
) CHARACTER SET utf8mb4 ENGINE InnoDB;

INSERT IGNORE INTO stu (sid, sname, address) VALUES
  (1, '张三丰', '湖南长沙'),
  (2, '张无忌', '河南洛阳'),
  (3, '段誉', '北京市'),
  (4, '乔峰', '广州市'),
  (5, '沈浪', '上海市');
