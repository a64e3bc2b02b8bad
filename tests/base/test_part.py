from ldae.base.part import Part


def test_each_job_is_in_one_part():
    jobs = list(range(11))
    for total in (1, 3, 20):
        parts = [Part(number, total).choose(jobs) for number in range(1, total + 1)]
        assert sorted(job for part in parts for job in part) == jobs
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        batches = [Part(number, total).choose_batches(jobs, 4) for number in range(1, total + 1)]
        assert sorted(job for part in batches for job in part) == jobs
        assert batches[0][:4] == jobs[:4]
    assert str(Part(3, 20)) == "3/20"
