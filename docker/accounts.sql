-- The loader's account in the playground's MySQL, which reads and no more.
CREATE USER loader@'%' IDENTIFIED BY 'playground';
GRANT SELECT ON school.* TO loader@'%';
