{{ config(meta={'dagster': {'ref': {'name': 'measurements'}}}) }}

-- The grid reads the input itself; what it takes must be the rows whose fate is kept or rescued, with their values.
select
    kept.hospital,
    count(*) as rows
from (
    select
        hospital,
        row_id,
        concept,
        value
    from {{ ref('measurements') }}
    where fate in ('kept', 'rescued')
) as kept
full outer join (
    select
        clocks.hospital,
        readings.row_id,
        readings.concept,
        readings.value
    from {{ ref('readings') }} as readings
    inner join {{ ref('clocks') }} as clocks on readings.clock_no = clocks.clock_no
) as readings
    on kept.hospital = readings.hospital and kept.row_id = readings.row_id
where kept.concept is distinct from readings.concept or kept.value is distinct from readings.value
group by kept.hospital
