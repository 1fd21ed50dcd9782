-- language: sql
select i.installed_version from ruvector.instance i
