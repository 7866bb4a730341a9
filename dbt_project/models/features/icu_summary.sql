with spans as (
    -- how far back from the moment a summary reaches
    select unnest({{ var('icu_summary_last_h') }}) as last_h
),

readings as (
    select
        stays.hospital,
        stays.patient_id,
        stays.visit_id,
        stays.stay_id,
        stays.known_at,
        stays.after_h,
        spans.last_h,
        readings.concept,
        readings.value,
        -- of two readings of one time the later known, then the later written
        { 'at': readings.event_at, 'known': readings.available_at, 'row_id': readings.row_id } as place,
        round((epoch_us(readings.event_at) - epoch_us(stays.start_at)) / 3.6e9, 4) as at_h
    {{ readings_known_by_moments() }}
    inner join spans
        on
            stays.after_h >= spans.last_h
            and readings.event_at >= stays.known_at - to_hours(spans.last_h)
)

select
    hospital,
    patient_id,
    visit_id,
    stay_id,
    known_at,
    after_h,
    cast(last_h as integer) as last_h,
    concept,
    cast(count(*) as integer) as n,
    min(value) as min,
    max(value) as max,
    round(avg(value), 10) as mean,
    median(value) as median,
    round(stddev_samp(value), 10) as deviation,
    arg_min(value, place) as first,
    arg_max(value, place) as last,
    min(at_h) as first_at_h,
    max(at_h) as last_at_h,
    case when max(at_h) > min(at_h) then round(regr_slope(value, at_h), 10) end as slope_per_h
from readings
group by hospital, patient_id, visit_id, stay_id, known_at, after_h, last_h, concept
