-- Bring the generated functions of every attached collection to this version. Triggers are left alone where they do what
-- this version asks for: a new trigger makes the writers of its table wait for a moment.
select ruvector.create_search(c.id) from ruvector.collection c;
do $$
declare
  c ruvector.collection;
begin
  for c in select * from ruvector.collection r where r.filter_columns <> '{}' order by r.id loop
    if ruvector.captures_as_registered(c) is not true then
      begin
        perform ruvector.renew_triggers(c.id);
      exception when others then       -- the table is busy, gone, or another role's
        raise warning 'changes of the filter columns of collection "%" are not captured yet: %', c.name, sqlerrm
          using hint = format('As the owner of the table: SELECT ruvector.recapture(%s);', c.id);
      end;
    end if;
  end loop;
end $$;
