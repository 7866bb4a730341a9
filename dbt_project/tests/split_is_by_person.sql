{{ config(tags=['whole_set'], meta={'dagster': {'ref': {'name': 'splits'}}}) }}

with persons as (
    select
        person_group,
        person_id,
        min(split) as split,
        count(distinct split) as splits,
        cast('0x' || left(md5(person_group || chr(31) || person_id), 8) as ubigint) / 4294967296 as place
    from {{ ref('splits') }}
    group by person_group, person_id
)

select
    split,
    count(*) as persons
from persons
where
    splits > 1
    or split is distinct from case when place < 0.8 then 'train' when place < 0.9 then 'tuning' else 'held_out' end
group by split
