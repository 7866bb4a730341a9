-- One row an hour of an ICU stay that is over, up to a week: what cohort_stays says of it, and the end of the hour.
select
    stays.*, -- noqa: AM04
    stays.icu_at + to_hours(cast(hours.hour as integer)) as hour_at
from {{ ref('cohort_stays') }} as stays
cross join range(1, 169) as hours (hour)
where stays.icu_at + to_hours(cast(hours.hour as integer)) <= stays.left_icu_at
