-- However many codes a diagnosis explodes into, it counts once and its ranks run from 1 without a gap.
select
    hospital,
    count(*) as rows
from (
    select
        hospital,
        row_id
    from {{ ref('diagnoses') }}
    group by hospital, row_id
    having abs(sum(weight) - 1) > 1e-9 or max(mapping_rank) <> count(*) or min(mapping_rank) <> 1
)
group by hospital
