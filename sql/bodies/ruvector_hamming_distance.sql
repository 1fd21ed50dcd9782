-- language: sql
select bit_count(('x' || encode($1, 'hex'))::varbit # ('x' || encode($2, 'hex'))::varbit)::int
