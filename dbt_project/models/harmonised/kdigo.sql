-- Each creatinine of an ICU stay against the lowest of the 7 days and 48 hours up to it, and each hour with urine by
-- the 6, 12 and 24 hours up to it, where its charting began early enough. 75 kg stand for a weight that nobody took.
with stays as (
    select * from {{ ref('clocks') }}
    where kind = 'stay'
),

creatinine as (
    select
        readings.clock_no,
        readings.event_at,
        readings.value,
        min(readings.value) over (
            partition by readings.clock_no order by readings.event_at
            range between interval 7 days preceding and current row
        ) as lowest_7d,
        min(readings.value) over (
            partition by readings.clock_no order by readings.event_at
            range between interval 48 hours preceding and current row
        ) as lowest_48h
    from {{ ref('readings') }} as readings
    inner join stays on readings.clock_no = stays.clock_no
    where readings.concept = 'creatinine'
),

weights as (
    select
        clock_no,
        arg_min(value, { 'hour': hour, 'value': value }) as kg
    from {{ ref('hours') }}
    where concept = 'weight'
    group by clock_no
),

urine as (
    select
        hours.clock_no,
        stays.start_at + to_hours(hours.hour + 1) as event_at,
        coalesce(weights.kg, 75) as kg,
        hours.hour - min(hours.hour) over (partition by hours.clock_no) + 1 as charted_h,
        sum(hours.value) over (
            partition by hours.clock_no order by hours.hour
            range between 5 preceding and current row
        ) as ml_6h,
        sum(hours.value) over (
            partition by hours.clock_no order by hours.hour
            range between 11 preceding and current row
        ) as ml_12h,
        sum(hours.value) over (
            partition by hours.clock_no order by hours.hour
            range between 23 preceding and current row
        ) as ml_24h
    from {{ ref('hours') }} as hours
    inner join stays on hours.clock_no = stays.clock_no
    left join weights on hours.clock_no = weights.clock_no
    where hours.concept = 'urine_output' and hours.hour >= 0
),

staged as (
    select
        clock_no,
        event_at,
        'creatinine' as criterion,
        case
            when value >= round(3 * lowest_7d, 6) then 3
            when
                value >= 4
                and (value >= round(lowest_48h + 0.3, 6) or value >= round(1.5 * lowest_7d, 6))
                then 3
            when value >= round(2 * lowest_7d, 6) then 2
            when value >= round(lowest_48h + 0.3, 6) or value >= round(1.5 * lowest_7d, 6) then 1
            else 0
        end as stage
    from creatinine
    union all
    select
        clock_no,
        event_at,
        'urine' as criterion,
        case
            when charted_h >= 24 and ml_24h / kg / 24 < 0.3 then 3
            when charted_h >= 12 and ml_12h = 0 then 3
            when charted_h >= 12 and ml_12h / kg / 12 < 0.5 then 2
            when charted_h >= 6 and ml_6h / kg / 6 < 0.5 then 1
            else 0
        end as stage
    from urine
)

select
    stays.hospital,
    stays.patient_id,
    stays.visit_id,
    stays.stay_id,
    staged.event_at,
    staged.criterion,
    cast(max(staged.stage) as integer) as stage
from staged
inner join stays on staged.clock_no = stays.clock_no
group by all
