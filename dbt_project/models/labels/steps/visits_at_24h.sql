-- Visits that still ran 24 hours after admission and have ended since: the cohort of what is predicted at 24 hours.
select
    hospital,
    patient_id,
    visit_id,
    event_at + interval 24 hours as prediction_at,
    event_at,
    end_at,
    died_in_visit
from {{ source('input', 'visits') }}
where visit_id is not null and end_at > event_at + interval 24 hours
