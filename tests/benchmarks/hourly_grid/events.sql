-- One bucket of synthetic ICU events as rows of the input layer, sorted by patient and time. 300 items, 48 of them mapped;
-- half of the rows are of a mapped item, most of these of a vital sign; a third of the numbers stands in another unit, a
-- fifth leaves its unit to the item, one in 200 is implausible and one in 200 is written twice.
with stays as (
    select unnest(range($bucket, $stays, $buckets)) as stay_no
),

drawn as (
    select
        stay_no,
        i,
        hash(stay_no, i, 1) / 18446744073709551616.0 as which,
        hash(stay_no, i, 2) / 18446744073709551616.0 as height,
        hash(stay_no, i, 3) % 1000 as luck
    from stays, range($rows_per_stay) as positions (i)
),

chosen as (
    select
        *,
        cast(case
            when which < 0.3 then floor(which / 0.3 * 8) -- the vital signs
            when which < 0.5 then 8 + floor((which - 0.3) / 0.2 * 40)
            else 48 + floor((which - 0.5) / 0.5 * 252)
        end as integer) as item_no,
        timestamp '2150-01-01 00:00:00' + to_hours(stay_no) + to_microseconds(cast(
            (i + height) / $rows_per_stay * $hours * 3600000000 as bigint)) as event_at
    from drawn
),

written as (
    select
        chosen.*,
        coalesce(items.code, cast(220000 + chosen.item_no as varchar)) as code,
        case when luck < 333 then items.other_unit when luck < 800 then items.unit end as unit,
        round(
            (
                (items.low + height * (items.high - items.low) + case when luck >= 995 then 1e9 else 0 end)
                - case when luck < 333 then items.shift else 0 end
            ) / case when luck < 333 then items.factor else 1 end, 3
        ) as value_number
    from chosen left join items on chosen.item_no = items.item_no
)

select
    'bench' as hospital,
    'p' || stay_no as patient_id,
    'v' || stay_no as visit_id,
    's' || stay_no as stay_id,
    event_at,
    event_at as available_at,
    'chartevents' as source_table,
    code,
    null as code_system,
    cast(value_number as varchar) as value_text,
    value_number,
    unit,
    null as ref_low,
    null as ref_high,
    'chartevents:' || (stay_no * 2 * $rows_per_stay + 2 * i + copy) as row_id
from written, range(2) as copies (copy)
where copy = 0 or luck % 200 = 77
order by stay_no, event_at, row_id
