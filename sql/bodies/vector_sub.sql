-- language: sql
select ($1::@vector@.vector operator(@vector@.-) $2::@vector@.vector)::real[]
