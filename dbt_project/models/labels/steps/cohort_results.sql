-- One row a patient, concept and time of measurement, in the concept's unit; two readings of one minute are one row.
select
    hospital,
    patient_id,
    max(visit_id) as visit_id,
    concept,
    event_at as result_at,
    max(available_at) as known_at,
    min(value) as lowest,
    max(value) as highest
from {{ ref('measurements') }}
where fate in ('kept', 'rescued')
group by hospital, patient_id, concept, event_at
